"""The IO manager `pandas`: small frames, read from and written to the tables of the run.

Frames are read as dagster-duckdb-pandas and dagster-gcp-pandas read them. They are written as every other
table is: those packages empty a table before they fill it, and leave out an empty frame.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dagster as dg
import pyarrow as pa

from serverless_assets import metadata
from serverless_assets.failures import as_failure
from serverless_assets.hashing import digest
from serverless_assets.names import TABLE_NAME
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.transformation.relation_states import State, refuse_unfinished
from serverless_assets.warehouse import TableShape, Warehouse, WarehouseError

SAME_ROWS = "unchanged: same rows"


class PandasTables(dg.IOManager):
    """The table of an asset as a pandas frame: its name is the last part of the asset's key."""

    def __init__(self, publisher: Publisher) -> None:
        self.warehouse = publisher.warehouse

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the rows, of the columns in the input's metadata `columns` if there are any."""
        with as_failure():
            return read_frame(
                self.warehouse, context.asset_key.path[-1], context.definition_metadata, context.dagster_type
            )

    def handle_output(self, context: dg.OutputContext, frame: Any) -> None:
        """Replace the table by the frame's rows, unless they are the same."""
        with as_failure(), self.warehouse.connected():
            stored = store_frame(self.warehouse, context.asset_key.path[-1], frame, State())
            context.add_output_metadata(stored)


def read_frame(
    warehouse: Warehouse, table: str, definition_metadata: Mapping[str, Any], dagster_type: dg.DagsterType
) -> Any:
    """Return the rows of a table as a frame, of the `columns` in the metadata if there are any.

    Raises:
        WarehouseError: there is no such table.
        UnfinishedError: its tests failed, or did not all run.
    """
    if table not in warehouse.tables():
        raise WarehouseError(f"There is no table {table} yet: run the asset that makes it first.")
    refuse_unfinished(warehouse, table)
    # Configured here and not as a resource, so that commands do not import pandas, nor forms show it.
    manager, config = warehouse.pandas_io_manager()
    context = dg.build_input_context(
        asset_key=dg.AssetKey(table),
        definition_metadata=definition_metadata,
        upstream_output=dg.build_output_context(asset_key=dg.AssetKey(table), definition_metadata={}),
        dagster_type=dagster_type,
        resource_config=config,
    )
    # Its connection shares the databases that this one has attached.
    with context, warehouse.connected():
        return manager.load_input(context)


def store_frame(
    warehouse: Warehouse, table: str, frame: Any, state: State, reason: str = "", force: bool = False
) -> dict[str, Any]:
    """Replace the rows of a table by those of a frame, and return metadata on that.

    The same rows are left as they are, unless forced.

    Args:
        state: what the frame was computed from, to be kept with the table; the version is that of the rows.
        reason: why it was computed.

    Raises:
        WarehouseError: it is no frame, or has columns that cannot be stored.
    """
    rows = to_rows(frame, table)
    state = replace(state, version=digest(f"{rows.schema}\n{rows.to_pydict()}"), rows=rows.num_rows)
    previous = read_state(warehouse, table)
    if previous is not None and previous.version == state.version and not force:
        state = replace(state, built_by=previous.built_by)
        if state != previous:
            warehouse.write_states({table: state.as_json()})
        return metadata.outcome("reused", SAME_ROWS, rows=rows.num_rows)
    shape = TableShape(table, rows.schema, f"Rows of the asset {table}.")
    work = warehouse.replace_rows(shape, rows, state.as_json())
    reason = reason or ("first rows" if previous is None else "new rows")
    return {
        **metadata.outcome("built", reason, rows=rows.num_rows),
        **metadata.job_metadata(work, warehouse),
        TABLE_NAME: warehouse.qualified_name(table),
    }


def read_state(warehouse: Warehouse, table: str) -> State | None:
    """Return what a table was made from; None if there is no such table."""
    return State.from_json(warehouse.read_state(table)) if table in warehouse.tables() else None


def to_rows(frame: Any, table: str) -> pa.Table:
    """Return the frame as a table of types that every warehouse has, without its index.

    Raises:
        WarehouseError: it is not a frame, or has a column of another type.
    """
    if not hasattr(frame, "columns"):
        raise WarehouseError(f"The asset {table} returns {type(frame).__name__}: return a pandas DataFrame.")
    try:
        rows = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
        fields = [
            pa.field(str(field.name), _common_type(field.type, field.name, table)) for field in rows.schema
        ]
        return rows.cast(pa.schema(fields))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise WarehouseError(f"The frame of the asset {table} cannot be stored: {error}") from None


def _common_type(kind: pa.DataType, column: str, table: str) -> pa.DataType:
    for is_type, common in (
        (pa.types.is_boolean, pa.bool_()),
        (pa.types.is_integer, pa.int64()),
        (pa.types.is_floating, pa.float64()),
        (pa.types.is_date, pa.date32()),
        (pa.types.is_timestamp, pa.timestamp("us")),
        # A column without any value has no type of its own.
        (lambda other: pa.types.is_null(other) or pa.types.is_large_string(other), pa.string()),
        (pa.types.is_string, pa.string()),
    ):
        if is_type(kind):
            return common
    raise WarehouseError(
        f"The column {column} of the asset {table} has the type {kind}: make it text, a number, a "
        "boolean, a date or a timestamp."
    )


@dg.io_manager(required_resource_keys={"publisher"}, description=PandasTables.__doc__)
def pandas_tables(context: dg.InitResourceContext) -> PandasTables:
    return PandasTables(context.resources.publisher)
