"""Which columns of other tables each column of a model is made of, read from the SQL that dbt compiled.

dagster-dbt's own lineage asks the warehouse for the columns of each model and its parents, some 12 s a build.
Here they are those that the manifest documents, and a model takes some milliseconds.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg

# dagster-dbt imports sqlglot too, so that this costs nothing.
from sqlglot import MappingSchema, exp, to_table
from sqlglot.lineage import Node as LineageNode
from sqlglot.lineage import lineage

from serverless_assets.asset_keys import asset_key, asset_name
from serverless_assets.files import write_atomically
from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.names import COLUMN_LINEAGE
from serverless_assets.transformation.manifest import (
    TargetSchema,
    dbt_asset_key,
    relation_name,
    selected_from,
)
from serverless_assets.transformation.nodes import Node
from serverless_assets.transformation.query_columns import ROWS, QueryColumns, query_columns

# It warns of columns that it does not know, for which no lineage is shown.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

Properties = Mapping[str, Any]
# By column: the unique ids of what it is made of, each with the column there.
Sources = Mapping[str, Collection[tuple[str, str]]]


def column_sources(sql: str, parents: Iterable[Properties], dialect: str) -> Sources:
    """What the values of each column that a query selects are made of. Pure.

    parents: dbt's properties of the models and sources that the query may read, with their columns. What a
    condition or a grouping alone reads is in no value, and a count is made of no column.

    Raises:
        Exception: sqlglot cannot make sense of the query.
    """
    schema, ids = MappingSchema(dialect=dialect), {}
    for parent in parents:
        relation = to_table(parent["relation_name"], dialect=dialect)
        ids[_name(relation)] = parent["unique_id"]
        types = {name: column.get("data_type") or "unknown" for name, column in parent["columns"].items()}
        schema.add_table(relation, types, dialect=dialect)
    sources: dict[str, Collection[tuple[str, str]]] = {}
    # None asks for all columns at once. To trim the query to each of them takes five times as long.
    for column, origin in lineage(None, sql, schema, dialect=dialect, trim_selects=False).items():
        ends = {
            (ids.get(_name(step.expression)), exp.to_column(step.name).name)
            for step in _known_steps(origin)
            if not step.downstream and isinstance(step.expression, exp.Table)
        }
        sources[column] = sorted((id, name) for id, name in ends if id and name != "*")
    return sources


def _known_steps(origin: LineageNode) -> Iterator[LineageNode]:
    """Yield the steps from a column to what it is made of, but for those of columns that are not known.

    Of a column that `*` selects and no parent documents, sqlglot goes on with the whole query.
    """
    if not isinstance(origin.expression, exp.Select):
        yield origin
        for step in origin.downstream:
            yield from _known_steps(step)


@dataclass(frozen=True)
class CompiledQueries:
    """The queries of models as dbt compiled them into a folder."""

    manifest: Mapping[str, Any]
    target: TargetSchema
    compiled: Path

    def read(self, node: Node, columns: Mapping[str, Sequence[str]]) -> QueryColumns:
        """Return what a model's query computes each column from; empty if that is not sure.

        columns: those of the models that it reads, in order, where they are known.
        """
        properties = self.manifest["nodes"][node.id]
        path = self._path(properties)
        if not node.build_hash or not path.is_file():
            return {}
        relations, columns = {}, {**columns}
        for parent in self._relations(properties):
            name = relations[parent["relation_name"]] = relation_name(parent, self.target)
            if parent["resource_type"] == "source" and is_raw_table(parent):
                columns[name] = [*parent["columns"]]
        query = query_columns(path.read_text(), relations, columns, self.manifest["metadata"]["adapter_type"])
        if not query or not (properties["config"].get("contract") or {}).get("enforced"):
            return query
        # A contract casts each column to its type.
        types = {
            ROWS: "",
            **{name.lower(): column["data_type"] for name, column in properties["columns"].items()},
        }
        if [*types] != [*query]:
            return {}
        return {name: (f"{code}:{types[name]}", reads) for name, (code, reads) in query.items()}

    def sources(self, id: str) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Return what each column of a model is made of: names of assets, each with the column there.

        Raises:
            Exception: there is no query, or sqlglot cannot make sense of it.
        """
        properties = self.manifest["nodes"][id]
        if properties["resource_type"] == "seed" or properties.get("language") == "python":
            return {}
        parents = self._relations(properties)
        names = {parent["unique_id"]: asset_name(dbt_asset_key(parent)) for parent in parents}
        dialect = self.manifest["metadata"]["adapter_type"]
        sources = column_sources(self._path(properties).read_text(), parents, dialect)
        return {
            column: [(names[id], name) for id, name in columns]
            for column, columns in sources.items()
            if columns
        }

    def _path(self, properties: Properties) -> Path:
        return self.compiled / properties["package_name"] / properties["original_file_path"]

    def _relations(self, properties: Properties) -> Sequence[Properties]:
        """What a model's query reads: its parents, and through the ephemeral ones theirs."""
        nodes, sources = self.manifest["nodes"], self.manifest["sources"]
        parents = (nodes.get(id) or sources.get(id) for id in selected_from(properties, self.manifest))
        return [parent for parent in parents if parent and parent.get("relation_name")]


def _name(relation: exp.Table) -> tuple[str, str]:
    return relation.db, relation.name


@dataclass(frozen=True)
class ColumnLineage:
    """The lineage of the models as metadata.

    `record` is a file with the lineage of the models as they were last built: to read it from a thousand
    events in Dagster's history takes seconds.
    """

    queries: CompiledQueries
    record: Path

    def of_built(self, id: str, version: str, log: Callable[[str], None]) -> Mapping[str, Any]:
        """Return the lineage of a model from the SQL that dbt ran; empty if sqlglot cannot read it."""
        try:
            columns = self.queries.sources(id)
        except Exception as error:
            name, words = self.queries.manifest["nodes"][id]["name"], str(error).strip().splitlines()
            log(f"No column lineage for {name}: {words[0] if words else type(error).__name__}")
            columns = {}
        self._recorded[id] = {"version": version, "columns": columns}
        return _as_metadata(columns)

    def is_recorded(self, id: str, version: str) -> bool:
        """Whether the lineage of this version of a model is known without Dagster's history."""
        return bool(self._recorded.get(id, {}).get("version") == version)

    def of_reused(self, id: str, version: str, before: dg.AssetMaterialization | None) -> Mapping[str, Any]:
        """Return the lineage of a reused model, as it was recorded when that was last built or reused."""
        if not self.is_recorded(id, version):
            lineage_before = before.metadata.get(COLUMN_LINEAGE) if before else None
            if not isinstance(lineage_before, dg.TableColumnLineageMetadataValue):
                # Dagster's history may be gone; what dbt compiled may still be there.
                return self.of_built(id, version, lambda words: None)
            columns = {
                column: [[asset_name(dep.asset_key), dep.column_name] for dep in deps]
                for column, deps in lineage_before.column_lineage.deps_by_column.items()
            }
            self._recorded[id] = {"version": version, "columns": columns}
        return _as_metadata(self._recorded[id]["columns"])

    def save(self) -> None:
        """Keep the lineage of all models for the next run."""
        content = json.dumps(self._recorded).encode()
        if not self.record.exists() or self.record.read_bytes() != content:
            write_atomically(self.record, content)

    @cached_property
    def _recorded(self) -> dict[str, dict[str, Any]]:
        with suppress(OSError, ValueError):
            return dict(json.loads(self.record.read_bytes()))
        return {}


def _as_metadata(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    if not columns:
        return {}
    return {
        COLUMN_LINEAGE: dg.TableColumnLineage(
            {
                name: [dg.TableColumnDep(asset_key(asset), column) for asset, column in deps]
                for name, deps in columns.items()
            }
        )
    }
