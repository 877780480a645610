"""Whether two warehouses hold the same, value by value."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from serverless_assets.warehouse import Warehouse

# Which run made a forecast, and when, is not what it says.
ABOUT_THE_RUN = {"forecast_run", "forecast_made_on"}
CLOSE = 1e-6


@dataclass(frozen=True)
class Compared:
    """One relation in both warehouses: its rows in each, and how many values differ."""

    relation: str
    rows: tuple[int, int]
    columns: int
    differences: int

    def __str__(self) -> str:
        rows = " / ".join(f"{count:,}" for count in self.rows)
        return f"{self.relation:<24}{rows:>20}{self.columns:>9}{self.differences:>13}"


HEADING = f"{'relation':<24}{'rows, local / gcp':>20}{'columns':>9}{'differences':>13}"


def compare(one: Warehouse, other: Warehouse, ignored: Collection[str] = ()) -> Iterator[Compared]:
    """Every relation that either warehouse has. Floats may differ by CLOSE, anything else not at all."""
    for name in sorted((one.tables() | other.tables()) - set(ignored)):
        tables = [_table(warehouse, name) for warehouse in (one, other)]
        yield Compared(
            name,
            (tables[0].num_rows, tables[1].num_rows),
            tables[0].num_columns,
            _differences(tables[0], tables[1]),
        )


def _table(warehouse: Warehouse, name: str) -> pa.Table:
    found = warehouse.query(f"select * from {warehouse.quoted_name(name)}")
    return found.select([column for column in found.column_names if column not in ABOUT_THE_RUN])


def _differences(one: pa.Table, other: pa.Table) -> int:
    if one.column_names != other.column_names or one.num_rows != other.num_rows:
        return max(one.num_rows, other.num_rows) * max(one.num_columns, other.num_columns)
    return sum(
        not _same(value, found)
        for row, counterpart in zip(_sorted(one), _sorted(other), strict=True)
        for value, found in zip(row, counterpart, strict=True)
    )


def _sorted(table: pa.Table) -> list[tuple[Any, ...]]:
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    # Nulls sort by being null; a float close to another must not decide on the order, so others go first.
    exact = [n for n, kind in enumerate(table.schema.types) if not pa.types.is_floating(kind)]
    return sorted(rows, key=lambda row: [(1, 0) if row[n] is None else (0, row[n]) for n in exact])


def _same(value: object, found: object) -> bool:
    if isinstance(value, float) and isinstance(found, float):
        return abs(value - found) <= CLOSE * max(1.0, abs(value))
    return value == found and type(value) is type(found)
