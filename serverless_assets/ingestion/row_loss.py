"""Rows that a load removes without replacement: a few are usual, most of them are a fault of the source."""

from collections.abc import Sequence
from datetime import date

from serverless_assets.ingestion.arrivals import AuditedTable
from serverless_assets.ingestion.catalog import RawTable, Window
from serverless_assets.ingestion.contract import ContractError
from serverless_assets.ingestion.decide import named
from serverless_assets.ingestion.state import TableState
from serverless_assets.warehouse import Warehouse

# Shares of the rows that a load replaces: with fewer it is refused, or warned of. A few rows (a month of a
# small shop) may well be half as many the day after: of those, only an empty table is refused.
LEAST_KEPT, USUALLY_KEPT = 0.5, 0.9
FEW_ROWS = 10


def refuse_row_loss(warehouse: Warehouse, prepared: AuditedTable, held: TableState | None) -> None:
    """Raise `ContractError` if the rows are none, or far fewer than the ones that they are to replace.

    The rows of another source are not compared with, unless there are none instead of them.
    """
    table, window, rows = prepared.table, prepared.window, prepared.content.rows
    if held is None or held.within(table, window) == prepared.content.hash:
        return
    before = rows_within(warehouse, table, window)
    emptied = before > 0 and rows == 0 and window is None
    same_source = held.source in ("", prepared.source)
    collapsed = same_source and before >= FEW_ROWS and rows < before * LEAST_KEPT
    if emptied or collapsed:
        months = f" of {window}" if window else ""
        raise ContractError(
            f"{table.name}: the source serves {rows:,} rows{months} instead of the {before:,} in the table. "
            f"Fewer than {LEAST_KEPT:.0%} are refused, and the table stays as it was. If the source is "
            "right, run again with rebuild: all (--rebuild)."
        )


def row_loss(before: int | None, rows: int, gone: Sequence[date]) -> str:
    """What to warn of after a load, in sentences; empty if there is nothing.

    before, rows: of the table. gone: months that have no rows any more.
    """
    sentences = []
    if before is not None and rows < before * USUALLY_KEPT:
        sentences.append(f"The last load left {rows:,} rows where there were {before:,}.")
    if gone:
        sentences.append(f"The last load left no rows of {named(gone)}.")
    return " ".join(sentences)


def rows_within(warehouse: Warehouse, table: RawTable, window: Window | None) -> int:
    """How many rows of the window the table has; of all of it without one."""
    if window is None:
        return warehouse.row_count(table.name)
    at, relation = table.event_time, warehouse.quoted_name(table.name)
    start, end = (f"timestamp '{day} 00:00:00'" for day in (window.start, window.end))
    counted = f"select count(*) as nr from {relation} where {at} >= {start} and {at} < {end}"
    return int(warehouse.query(counted)["nr"][0].as_py())
