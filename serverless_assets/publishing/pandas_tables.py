"""The IO manager `pandas`: small frames, read from and written to the tables of the run.

Frames are read as dagster-duckdb-pandas and dagster-gcp-pandas read them. They are written as every other
table is: those packages empty a table before they fill it, and leave out an empty frame.
"""

from typing import Any

import dagster as dg
import pyarrow as pa

from serverless_assets import metadata
from serverless_assets.failures import as_failure
from serverless_assets.hashing import digest
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.warehouse import TableShape, WarehouseError

# The state key of the table: a hash of its rows.
KEY = "rows_hash"
UNCHANGED = "unchanged: same rows"


class PandasTables(dg.IOManager):
    """The table of an asset as a pandas frame: its name is the last part of the asset's key."""

    def __init__(self, publisher: Publisher) -> None:
        self.warehouse = publisher.warehouse

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the rows, of the columns in the input's metadata `columns` if there are any."""
        table = context.asset_key.path[-1]
        manager, config = self.warehouse.pandas_io_manager()
        with as_failure():
            if table not in self.warehouse.tables():
                raise WarehouseError(f"There is no table {table} yet: run the asset that makes it first.")
            # Configured here and not as a resource, so that commands do not import pandas, nor forms show it.
            reading = dg.build_input_context(
                name=context.name,
                asset_key=dg.AssetKey(table),
                definition_metadata=context.definition_metadata,
                upstream_output=dg.build_output_context(asset_key=dg.AssetKey(table), definition_metadata={}),
                dagster_type=context.dagster_type,
                resource_config=config,
            )
            with reading:
                return manager.load_input(reading)

    def handle_output(self, context: dg.OutputContext, frame: Any) -> None:
        """Replace the table by the frame's rows, unless they are the same."""
        table, warehouse = context.asset_key.path[-1], self.warehouse
        with as_failure(), warehouse.connected():
            rows = to_rows(frame, table)
            key = digest(f"{rows.schema}\n{rows.to_pydict()}")
            state = warehouse.read_state(table) if table in warehouse.tables() else None
            if state is not None and state.get(KEY) == key:
                context.add_output_metadata(metadata.outcome("reused", UNCHANGED, rows=rows.num_rows))
                return
            reason = "first rows" if state is None else "new rows"
            work = warehouse.replace_rows(
                TableShape(table, rows.schema, f"Rows of the asset {table}."), rows, {KEY: key}
            )
            context.add_output_metadata(
                {
                    **metadata.outcome("built", reason, rows=rows.num_rows),
                    **metadata.work(work, warehouse),
                    "dagster/table_name": warehouse.qualified_name(table),
                }
            )


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


def _common_type(found: pa.DataType, column: str, table: str) -> pa.DataType:
    for is_type, common in (
        (pa.types.is_boolean, pa.bool_()),
        (pa.types.is_integer, pa.int64()),
        (pa.types.is_floating, pa.float64()),
        (pa.types.is_date, pa.date32()),
        (pa.types.is_timestamp, pa.timestamp("us")),
        # A column without any value has no type of its own.
        (lambda kind: pa.types.is_null(kind) or pa.types.is_large_string(kind), pa.string()),
        (pa.types.is_string, pa.string()),
    ):
        if is_type(found):
            return common
    raise WarehouseError(
        f"The column {column} of the asset {table} has the type {found}: make it text, a number, a "
        "boolean, a date or a timestamp."
    )


@dg.io_manager(required_resource_keys={"publisher"}, description=PandasTables.__doc__)
def pandas_tables(context: dg.InitResourceContext) -> PandasTables:
    return PandasTables(context.resources.publisher)
