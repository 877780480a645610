"""What the UI shows of every asset beside its runs: owner, kinds, table, columns and code."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pyarrow as pa

from serverless_assets.asset_keys import asset_name
from serverless_assets.environments import Environment
from serverless_assets.forecasting.tables import tables_of
from serverless_assets.ingestion.raw_table import TYPES, RawTable
from serverless_assets.metadata import REPORT_LINK
from serverless_assets.names import CODE_REFERENCES, COLUMN_SCHEMA, DBT_UNIQUE_ID, TABLE_NAME
from serverless_assets.project_root import PROJECT_ROOT

# The name of a table and its columns.
Table = tuple[str, dg.TableSchema]
CodeReference = dg.LocalFileCodeReference | dg.UrlCodeReference


def annotate_assets(
    assets: Iterable[dg.AssetsDefinition], environment: Environment
) -> list[dg.AssetsDefinition]:
    """Return the assets with owner, kinds, table, columns and code references; what a spec sets stays."""
    manifest, warehouse, settings = (
        environment.manifest,
        environment.publisher.warehouse,
        environment.settings,
    )
    sources = {source["identifier"]: source for source in manifest["sources"].values()}
    raw_tables = {table.name: sources[table.name] for table in environment.raw_tables}
    # Models are not here, as dagster-dbt describes their tables.
    tables = {
        **{table.name: _raw_table(table, sources[table.name]) for table in environment.raw_tables},
        **{
            asset: (shape.name, _table_schema(shape.schema, descriptions))
            for forecast in environment.forecasts
            for asset, (shape, descriptions) in tables_of(forecast).items()
        },
    }
    frames = {frame.name for frame in environment.python_assets}
    reports = {forecast.report: forecast.page for forecast in environment.forecasts}

    def annotate(spec: dg.AssetSpec) -> dg.AssetSpec:
        asset, metadata, group = asset_name(spec.key), dict(spec.metadata), spec.group_name
        references: Iterable[dg.LocalFileCodeReference] = ()
        if asset in tables:
            table, columns = tables[asset]
            metadata = {TABLE_NAME: warehouse.qualified_name(table), COLUMN_SCHEMA: columns, **metadata}
        elif asset in frames:
            metadata[TABLE_NAME] = warehouse.qualified_name(spec.key.path[-1])
        elif asset in reports and settings.reports_url:
            metadata[REPORT_LINK] = dg.MetadataValue.url(f"{settings.reports_url}/{quote(reports[asset])}")
        if asset in raw_tables:
            references = _contract(raw_tables[asset], settings.dbt_project)
            group = raw_tables[asset]["meta"].get("dagster", {}).get("group", group)
        elif DBT_UNIQUE_ID in metadata:
            references = _model_files(manifest["nodes"][metadata[DBT_UNIQUE_ID]], settings.dbt_project)
        metadata[CODE_REFERENCES] = dg.CodeReferencesMetadataValue(code_references=[*references])
        return spec.replace_attributes(
            owners=spec.owners or [settings.owner],
            kinds={*spec.kinds, *([warehouse.kind] if TABLE_NAME in metadata else [])},
            metadata=metadata,
            group_name=group,
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


def _raw_table(table: RawTable, source: Mapping[str, Any]) -> Table:
    descriptions = {name: column["description"] for name, column in source["columns"].items()}
    return table.name, _table_schema(table.schema, descriptions)


def _table_schema(schema: pa.Schema, descriptions: Mapping[str, str]) -> dg.TableSchema:
    """Return columns as Dagster shows them, with types as the dbt project names them, such as `bigint`."""
    # A type with several names is shown by the first.
    names = {kind: name for name, kind in [*TYPES.items()][::-1]}
    return dg.TableSchema(
        [
            dg.TableColumn(
                field.name,
                "date" if pa.types.is_date(field.type) else names.get(field.type, str(field.type)),
                descriptions.get(field.name),
            )
            for field in schema
        ]
    )


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
            yield _file(path, number, "its declared columns")


def _file(path: Path, line: int, label: str) -> dg.LocalFileCodeReference:
    return dg.LocalFileCodeReference(file_path=str(path), line_number=line, label=label)


def _link(reference: CodeReference, code_url: str | None) -> CodeReference:
    """Return a link below SERVERLESS_CODE_URL if the file is in this repository, else the file itself.

    `dg.link_code_references_to_git` knows GitHub and GitLab alone, and the setting is any host's address.
    """
    if isinstance(reference, dg.UrlCodeReference):
        return reference
    label, path = reference.label or "its Python code", Path(reference.file_path)
    installed = path.is_relative_to(sys.prefix)
    if code_url is None or installed or not path.is_relative_to(PROJECT_ROOT):
        return _file(path, reference.line_number or 1, label)
    place = f"{path.relative_to(PROJECT_ROOT).as_posix()}#L{reference.line_number}"
    return dg.UrlCodeReference(url=f"{code_url.rstrip('/')}/{place}", label=label)
