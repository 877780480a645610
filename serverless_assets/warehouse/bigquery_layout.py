"""How tables are partitioned and clustered, and which of those that people read a run lays out otherwise."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.cloud import bigquery

from serverless_assets.warehouse import TableShape
from serverless_assets.warehouse.bigquery import BigQueryWarehouse


def find_layout_changes(
    work: BigQueryWarehouse, models: Iterable[Mapping[str, Any]], raw_tables: Iterable[TableShape]
) -> Mapping[str, str]:
    """Return in a clause, by name, how published relations change that BigQuery drops to replace them.

    Args:
        models: their entries in the manifest, whichever schemas they are in.
    """
    # By work dataset and name, the layout that the project says; None of a view.
    declared: dict[BigQueryWarehouse, dict[str, tuple[object, ...] | None]] = {
        work: {table.name: _layout_of_shape(table) for table in raw_tables}
    }
    for model in models:
        there = work.in_schema(model["database"] or "", model["schema"])
        if work.has(there.dataset):
            is_view = model["config"].get("materialized") == "view"
            layout = None if is_view else _configured_layout(model["config"])
            declared.setdefault(there, {})[model["alias"]] = layout
    changes = {}
    for there, layouts in declared.items():
        for name, relation in there.published().relations().items():
            before, after = None if relation.table_type == "VIEW" else layout_of(relation), layouts.get(name)
            if name not in layouts or before == after:
                continue
            if before is None or after is None:
                kinds = ("view", "table") if before is None else ("table", "view")
                changes[name] = "is a {}, becomes a {}".format(*kinds)
            else:
                changes[name] = "is partitioned or clustered otherwise"
    return changes


def _layout_of_shape(table: TableShape) -> tuple[object, ...]:
    """What `layout_of` says of a table that is loaded in this shape."""
    by_time = (table.partition_unit.upper(), table.partitioned_by) if table.partitioned_by else None
    return (by_time, None, list(table.clustered_by) or None)


def _configured_layout(config: Mapping[str, Any]) -> tuple[object, ...]:
    """What `layout_of` says of a table that dbt builds with this config."""
    by, clustered = config.get("partition_by") or {}, config.get("cluster_by") or None
    clustering = [clustered] if isinstance(clustered, str) else clustered
    if bounds := by.get("range"):
        interval = bigquery.PartitionRange(*(bounds[name] for name in ("start", "end", "interval")))
        return (None, bigquery.RangePartitioning(field=by["field"], range_=interval), clustering)
    field = None if by.get("time_ingestion_partitioning") else by.get("field")
    by_time = (str(by.get("granularity", "day")).upper(), field) if by else None
    return (by_time, None, clustering)


def layout_of(table: bigquery.Table) -> tuple[object, ...]:
    partitioning = table.time_partitioning
    by_time = partitioning and (partitioning.type_, partitioning.field)
    return (by_time, table.range_partitioning, table.clustering_fields)
