"""What people see of every asset in the graph beside what it does: owner, kinds, table, columns and code.

In one place, so that no asset is without.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from serverless_assets.forecasting import accuracy, forecast_file, stores
from serverless_assets.ingestion import catalog
from serverless_assets.settings import PROJECT_ROOT, Settings
from serverless_assets.warehouse import Warehouse

COLUMNS, TABLE, CODE = "dagster/column_schema", "dagster/table_name", "dagster/code_references"
DBT_ID = "dagster_dbt/unique_id"
FORECAST = "order_forecast"
FORECASTS_TABLES = {
    accuracy.TABLE: (accuracy.SCHEMA, accuracy.DESCRIPTIONS),
    stores.TABLE: (stores.SCHEMA, stores.DESCRIPTIONS),
}


@dataclass(frozen=True)
class Place:
    """A line of a file of the code, and what is there."""

    path: Path
    line: int
    label: str

    def reference(self, code_url: str | None) -> dg.LocalFileCodeReference | dg.UrlCodeReference:
        """A link below `code_url` if the file is in this repository, else the file on this machine."""
        if code_url is None or not self.path.is_relative_to(PROJECT_ROOT):
            return dg.LocalFileCodeReference(
                file_path=str(self.path), line_number=self.line, label=self.label
            )
        path = self.path.relative_to(PROJECT_ROOT).as_posix()
        return dg.UrlCodeReference(url=f"{code_url.rstrip('/')}/{path}#L{self.line}", label=self.label)


@dataclass(frozen=True)
class Described:
    """Describes assets; `manifest` is that of the dbt project."""

    settings: Settings
    warehouse: Warehouse
    manifest: Mapping[str, Any]

    def all(self, assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
        """The assets with all that people see of them; what an asset says of itself stays."""
        return [self._definition(found) for found in assets]

    def _definition(self, found: dg.AssetsDefinition) -> dg.AssetsDefinition:
        function = found.op.compute_fn.decorated_fn  # type: ignore[union-attr]
        _, line = inspect.getsourcelines(function)
        code = Place(Path(inspect.getfile(function)), line, "how it is made")
        return found.map_asset_specs(lambda spec: self._spec(spec, code))

    def _spec(self, spec: dg.AssetSpec, code: Place) -> dg.AssetSpec:
        name = spec.key.to_user_string()
        shown = {**self._table(name), **spec.metadata}
        own = self._model(spec.metadata[DBT_ID]) if DBT_ID in spec.metadata else _contract(name)
        places = [place.reference(self.settings.code_url) for place in (*own, code)]
        shown[CODE] = dg.CodeReferencesMetadataValue(code_references=places)
        kinds = {*spec.kinds, *([self.warehouse.kind] if TABLE in shown else [])}
        return spec.replace_attributes(
            owners=spec.owners or [self.settings.owner], kinds=kinds, metadata=shown
        )

    def _table(self, name: str) -> Mapping[str, Any]:
        """The table of a raw asset and of the forecast; dagster-dbt tells those of models."""
        if name == FORECAST:
            columns = column_schema(forecast_file.SCHEMA, forecast_file.DESCRIPTIONS)
            return {TABLE: self.warehouse.qualified_name(self.settings.forecast_table), COLUMNS: columns}
        if name in FORECASTS_TABLES:
            return {
                TABLE: self.warehouse.qualified_name(name),
                COLUMNS: column_schema(*FORECASTS_TABLES[name]),
            }
        for table in catalog.TABLES:
            if table.name == name:
                columns = column_schema(table.schema, self._words(name))
                return {TABLE: self.warehouse.qualified_name(name), COLUMNS: columns}
        return {}

    def _words(self, raw_table: str) -> Mapping[str, str]:
        """What the dbt project says of the columns of its source."""
        sources = self.manifest["sources"].values()
        columns: Mapping[str, Any] = next(
            (source["columns"] for source in sources if source["identifier"] == raw_table), {}
        )
        return {column: found["description"] for column, found in columns.items()}

    def _model(self, unique_id: str) -> Iterable[Place]:
        node, project = self.manifest["nodes"][unique_id], self.settings.dbt_project
        yield Place(project / node["original_file_path"], 1, "its query")
        if node["patch_path"]:
            yield Place(project / node["patch_path"].partition("://")[2], 1, "its columns and tests")


def column_schema(schema: pa.Schema, descriptions: Mapping[str, str]) -> dg.TableSchema:
    """Columns as Dagster shows them."""
    return dg.TableSchema(
        [dg.TableColumn(field.name, str(field.type), descriptions.get(field.name)) for field in schema]
    )


def _contract(name: str) -> Iterable[Place]:
    path = Path(catalog.__file__)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() == f'"{name}",':
            yield Place(path, number, "what the source must serve")
