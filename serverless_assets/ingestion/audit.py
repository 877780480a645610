"""Check staged rows before they replace those of a table: keys, parents, number. Each check is one query."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa

from modal_forecast.report.formats import counted
from serverless_assets import sql
from serverless_assets.ingestion.contract import ContractError, Problem, refuse
from serverless_assets.ingestion.fetch_result import AuditedTable
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.state import TableState
from serverless_assets.months import Window, name_months
from serverless_assets.warehouse import Warehouse
from serverless_assets.warehouse.staging import StagedRows

# A load that keeps a smaller share of the rows than this is refused. A few rows (a month of a small shop) may
# well be half as many the day after: of those, only an empty table is refused.
LEAST_KEPT, FEW_ROWS = 0.5, 10
# A load that keeps a smaller share of the rows is warned of.
USUALLY_KEPT = 0.9
# Hashes of keys that are sorted at a time: 8 bytes each.
KEYS_AT_ONCE = 1 << 24


def check_keys(rows: StagedRows, table: RawTable) -> None:
    """Raise `ContractError` unless the key is unique and key and event time are never null."""
    required = list(table.key)
    required += [str(name) for name in (table.event_time, table.updated_at) if name in table.columns]
    counts = ", ".join(f"count(*) - count({sql.identifier(name)})" for name in required)
    with rows.area.cursor() as connection:
        total, *nulls = connection.execute(f"select count(*), {counts} from {rows.relation}").fetchone() or ()
        refuse(
            [
                Problem(table.name, name, "no nulls", f"{counted(count, 'row')} without a value")
                for name, count in zip(required, nulls, strict=True)
                if count
            ]
        )
        key = ", ".join(map(sql.identifier, table.key))
        parts = total // KEYS_AT_ONCE + 1
        for part in range(parts):
            of_part = f" where hash({key}) % {parts} = {part}" if parts > 1 else ""
            query = f"select hash({key}) as hash from {rows.relation}{of_part}"
            hashes = np.asarray(connection.execute(query).fetchnumpy()["hash"])
            hashes.sort()
            repeated = hashes[1:][hashes[1:] == hashes[:-1]]
            if len(repeated) == 0:
                continue
            # Keys of one hash need not be the same.
            connection.register("repeated", pa.table({"hash": repeated}))
            duplicate = connection.execute(
                f"select {key}, count(*) as times from {rows.relation}"
                f" where hash({key}) in (select hash from repeated) group by all having times > 1 limit 1"
            ).fetchone()
            if duplicate:
                *value, times = duplicate
                repetition = f"{', '.join(map(repr, value))} {times} times"
                refuse([Problem(table.name, "+".join(table.key), "unique values", repetition)])


def check_parents(rows: StagedRows, table: RawTable, every_parent: Callable[[], StagedRows]) -> int:
    """Return how many staged rows have no event time, as their parents are not among those requested.

    A source may cut the parents to the window and not the children. Whether these rows belong to parents of
    other months, or to none at all, `every_parent` tells, which is called only if there are such rows.

    Raises:
        ContractError: rows have no parent at all.
    """
    dated_by = table.dated_by
    assert dated_by is not None
    child_key, parent_key = sql.identifier(dated_by.column), sql.identifier(*dated_by.parent.key)
    time = sql.identifier(str(table.event_time))
    with rows.area.cursor() as connection:
        query = f"select count(*) - count({time}) from {rows.relation}"
        (undated,) = connection.execute(query).fetchone() or (0,)
    if not undated:
        return 0
    parents = every_parent().relation
    with rows.area.cursor() as connection:
        orphans, example = connection.execute(
            f"select count(*), min(child.{child_key}) from {rows.relation} as child"
            f" anti join {parents} as parent on child.{child_key} = parent.{parent_key}"
            f" where child.{time} is null"
        ).fetchone() or (0, None)
    if orphans:
        others = f"{orphans:,} rows of others, such as {example!r}"
        refuse([Problem(table.name, dated_by.column, f"keys of {dated_by.parent.name}", others)])
    return int(undated)


def within(rows: StagedRows, table: RawTable, window: Window) -> StagedRows:
    """Return the rows whose event time lies in the window."""
    event_time = sql.identifier(str(table.event_time))
    condition = f"{event_time} >= date '{window.start}' and {event_time} < date '{window.end}'"
    return replace(rows, condition=condition)


def refuse_row_loss(audited: AuditedTable, state: TableState, warehouse: Warehouse) -> None:
    """Raise `ContractError` if the rows are none, or far fewer than the ones that they are to replace.

    The rows of another source are not compared with, unless there are none instead of them.
    """
    table, window, content = audited.table, audited.scope.window, audited.content
    if state.within(table, window) == content.hash:
        return
    if window is None:
        before = warehouse.row_count(table.name)
    else:
        start, end = (f"timestamp '{day} 00:00:00'" for day in (window.start, window.end))
        within = f"{table.event_time} >= {start} and {table.event_time} < {end}"
        query = f"select count(*) as nr from {warehouse.quoted_name(table.name)} where {within}"
        before = int(warehouse.query(query)["nr"][0].as_py())
    emptied = before > 0 and content.rows == 0 and window is None
    same_source = state.source in ("", audited.scope.source)
    if emptied or (same_source and before >= FEW_ROWS and content.rows < before * LEAST_KEPT):
        months = f" of {window}" if window else ""
        raise ContractError(
            f"{table.name}: the source serves {content.rows:,} rows{months} instead of the {before:,} in the "
            f"table. Fewer than {LEAST_KEPT:.0%} are refused, and the table stays as it was. If the source "
            "is right, run again with rebuild: all (--rebuild)."
        )


def row_loss_warning(before: int | None, rows: int, emptied: Sequence[date]) -> str:
    """Return what to warn of after a load, in sentences; empty if there is nothing.

    before, rows: of the table; `before` is None for a first load.
    emptied: months that have no rows any more.
    """
    sentences = []
    if before is not None and rows < before * USUALLY_KEPT:
        sentences.append(f"The last load left {rows:,} rows where there were {before:,}.")
    if emptied:
        sentences.append(f"The last load left no rows of {name_months(emptied)}.")
    return " ".join(sentences)
