"""What the UI shows of every asset beside its runs: owner, kinds, table, columns and code."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from serverless_assets.asset_keys import asset_name
from serverless_assets.environments import Environment
from serverless_assets.forecasting import accuracy, forecast_file, part_accuracy
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.parts import describe_parts, part_schema
from serverless_assets.ingestion.raw_table import TYPES, RawTable
from serverless_assets.names import (
    CODE_REFERENCES,
    COLUMN_SCHEMA,
    DBT_UNIQUE_ID,
    TABLE_NAME,
)
from serverless_assets.settings import PROJECT_ROOT
from serverless_assets.warehouse import Warehouse

ForecastTable = tuple[str, pa.Schema, Mapping[str, str]]
CodeReference = dg.LocalFileCodeReference | dg.UrlCodeReference


def annotate_assets(
    assets: Iterable[dg.AssetsDefinition], environment: Environment
) -> list[dg.AssetsDefinition]:
    """Return the assets with owner, kinds, table, columns and code references; what a spec sets stays."""
    settings, manifest, warehouse = (
        environment.settings,
        environment.manifest,
        environment.publisher.warehouse,
    )
    forecast_tables = {
        asset: table
        for forecast in environment.forecasts
        for asset, table in _forecast_tables(forecast).items()
    }
    # Their tables are named as they are.
    python_assets = {frame.name for frame in environment.python_assets}
    raw_tables = {table.name: table for table in environment.raw_tables}
    sources = {source["identifier"]: source for source in manifest["sources"].values()}

    def annotate(spec: dg.AssetSpec) -> dg.AssetSpec:
        asset = asset_name(spec.key)
        metadata = {**_table(asset, forecast_tables, warehouse, raw_tables, sources), **spec.metadata}
        if asset in python_assets:
            metadata[TABLE_NAME] = warehouse.qualified_name(spec.key.path[-1])
        declared = (
            _model_files(manifest["nodes"][spec.metadata[DBT_UNIQUE_ID]], settings.dbt_project)
            if DBT_UNIQUE_ID in spec.metadata
            else _contract(sources[asset], settings.dbt_project)
            if asset in raw_tables
            else ()
        )
        metadata[CODE_REFERENCES] = dg.CodeReferencesMetadataValue(code_references=list(declared))
        group = spec.group_name
        if asset in raw_tables:
            group = sources[asset]["meta"].get("dagster", {}).get("group", group)
        kinds = {*spec.kinds, *([warehouse.kind] if TABLE_NAME in metadata else [])}
        return spec.replace_attributes(
            owners=spec.owners or [settings.owner], kinds=kinds, metadata=metadata, group_name=group
        )

    def link(spec: dg.AssetSpec) -> dg.AssetSpec:
        references = spec.metadata[CODE_REFERENCES].code_references
        linked = [_link(reference, settings.code_url) for reference in references]
        value = dg.CodeReferencesMetadataValue(code_references=linked)
        return spec.replace_attributes(metadata={**spec.metadata, CODE_REFERENCES: value})

    annotated = [definition.map_asset_specs(annotate) for definition in assets]
    return [
        definition.map_asset_specs(link)
        for definition in dg.with_source_code_references(annotated)
        if isinstance(definition, dg.AssetsDefinition)
    ]


def column_schema(schema: pa.Schema, descriptions: Mapping[str, str]) -> dg.TableSchema:
    """Return the columns as Dagster shows them."""
    return dg.TableSchema(
        [dg.TableColumn(field.name, type_name(field.type), descriptions.get(field.name)) for field in schema]
    )


def type_name(kind: pa.DataType) -> str:
    """Return the name of a type as columns of the dbt project declare it, such as `bigint`."""
    if pa.types.is_date(kind):
        return "date"
    return next((name for name, declared in TYPES.items() if declared == kind), str(kind))


def _forecast_tables(forecast: ForecastDeclaration) -> Mapping[str, ForecastTable]:
    """Return the table, columns and their descriptions of each asset of a forecast."""
    grain = forecast.time_grain
    tables: dict[str, ForecastTable] = {
        forecast.asset: (
            forecast.table,
            forecast_file.SCHEMA,
            forecast_file.describe_columns(forecast),
        ),
        forecast.accuracy: (forecast.accuracy, accuracy.score_schema(grain), accuracy.describe_scores(grain)),
    }
    if parts := forecast.parts:
        tables[parts.asset] = parts.asset, part_schema(parts), describe_parts(forecast, parts)[1]
        scores = (
            part_accuracy.part_accuracy_schema(parts, grain),
            part_accuracy.describe_part_accuracy(parts, grain),
        )
        tables[forecast.part_accuracy] = forecast.part_accuracy, *scores
    return tables


def _table(
    asset: str,
    forecast_tables: Mapping[str, ForecastTable],
    warehouse: Warehouse,
    raw_tables: Mapping[str, RawTable],
    sources: Mapping[str, Mapping[str, Any]],
) -> Mapping[str, Any]:
    """Return the table and columns of an asset; dagster-dbt sets those of models."""
    if asset in forecast_tables:
        table, schema, descriptions = forecast_tables[asset]
    elif asset in raw_tables:
        schema, table = raw_tables[asset].schema, asset
        columns = sources[asset]["columns"]
        descriptions = {name: column["description"] for name, column in columns.items()}
    else:
        return {}
    return {
        TABLE_NAME: warehouse.qualified_name(table),
        COLUMN_SCHEMA: column_schema(schema, descriptions),
    }


def _model_files(node: Mapping[str, Any], project: Path) -> Iterator[dg.LocalFileCodeReference]:
    yield _file(project / node["original_file_path"], 1, "its query")
    if node["patch_path"]:
        path = project / node["patch_path"].partition("://")[2]
        yield _file(path, 1, "its columns and tests")


def _contract(source: Mapping[str, Any], project: Path) -> Iterator[dg.LocalFileCodeReference]:
    """Yield where a raw table is declared."""
    path = project / source["original_file_path"]
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() == f"- name: {source['name']}":
            yield _file(path, number, "what the source must serve")


def _file(path: Path, line: int, label: str) -> dg.LocalFileCodeReference:
    return dg.LocalFileCodeReference(file_path=str(path), line_number=line, label=label)


def _link(reference: CodeReference, code_url: str | None) -> CodeReference:
    """Return a link below SERVERLESS_CODE_URL if the file is in this repository, else the file itself.

    `dg.link_code_references_to_git` knows GitHub and GitLab alone, and the setting is any host's address.
    """
    if isinstance(reference, dg.UrlCodeReference):
        return reference
    label, path = reference.label or "its code", Path(reference.file_path)
    installed = path.is_relative_to(sys.prefix)
    if code_url is None or installed or not path.is_relative_to(PROJECT_ROOT):
        return _file(path, reference.line_number or 1, label)
    place = f"{path.relative_to(PROJECT_ROOT).as_posix()}#L{reference.line_number}"
    return dg.UrlCodeReference(url=f"{code_url.rstrip('/')}/{place}", label=label)
