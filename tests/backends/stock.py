"""Orders on the last and first instants of months, to keep in a warehouse and to find in it again."""

from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from serverless_assets.warehouse import TableShape

if TYPE_CHECKING:
    from tests.backends.conftest import Backend

FACTS = pa.schema({"id": pa.string(), "at": pa.timestamp("us"), "amount": pa.int64()})
ORDERS = TableShape("orders", FACTS, "One row per order.", partitioned_by="at", clustered_by=("id", "amount"))
JANUARY, FEBRUARY, MARCH = date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)
LAST_OF_JANUARY = datetime(2026, 1, 31, 23, 59, 59, 999999)
FIRST_OF_FEBRUARY = datetime(2026, 2, 1)
LAST_OF_FEBRUARY = datetime(2026, 2, 28, 23, 59, 59, 999999)
FIRST_OF_MARCH = datetime(2026, 3, 1)

STOCK = [
    ("a", LAST_OF_JANUARY, 1),
    ("b", FIRST_OF_FEBRUARY, 2),
    ("c", LAST_OF_FEBRUARY, 3),
    ("d", FIRST_OF_MARCH, 4),
    ("e", None, 5),
]


def orders(*rows: tuple[str, datetime | None, int]) -> pa.Table:
    return pa.table(dict(zip(FACTS.names, zip(*rows, strict=True), strict=True)) if rows else {}, FACTS)


def nothing(schema: pa.Schema = FACTS) -> pa.Table:
    return schema.empty_table()


def kept(backend: "Backend", table: str) -> list[dict[str, Any]]:
    """The rows of a table."""
    answer = backend.warehouse.query(f"select * from {backend.warehouse.quoted_name(table)} order by id")
    return answer.to_pylist()


def kept_orders(backend: "Backend") -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in kept(backend, "orders")]
