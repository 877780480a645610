"""The catalogue of raw tables, and the months that they are loaded by. To add a table, add its lines here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

import pyarrow as pa

from serverless_assets.months import next_month
from serverless_assets.warehouse import TableShape

ID = pa.string()
TEXT = pa.string()
CENTS = pa.int64()
RATE = pa.float64()
FLAG = pa.bool_()
TIMESTAMP = pa.timestamp("us")

# The values that every column of a type may have; a table with any other is refused. Times beyond these are
# placeholders (0001-01-01, 9999-12-31) or mistakes, and pandas, Python and the warehouses each hold others.
EARLIEST, END_OF_TIME = datetime(1900, 1, 1), datetime(2200, 1, 1)
# Ten trillion dollars in cents: sums over billions of rows stay within the marts' decimals.
LARGEST_INTEGER = 10**15
# A model that repeats a text on each of its rows is as slow as the text is long.
LONGEST_TEXT_BYTES = 4 * 1024


@dataclass(frozen=True)
class Window:
    """Days from `start` up to, not including, `end`; both the first of a month."""

    start: date
    end: date

    def __str__(self) -> str:
        return f"{self.start} up to {self.end}"

    def __contains__(self, day: date | str) -> bool:
        """Whether a day, or the ISO form of one, lies in the window."""
        return self.start.isoformat() <= str(day) < self.end.isoformat()

    @classmethod
    def of_months(cls, first: date, last: date) -> "Window":
        """Return the window from the month of `first` to the month of `last`, both included."""
        return cls(first.replace(day=1), next_month(last))

    def months(self) -> list[date]:
        """Return the first day of every month in the window."""
        months = [self.start]
        while (month := next_month(months[-1])) < self.end:
            months.append(month)
        return months


@dataclass(frozen=True)
class DatedBy:
    """A fact without a time of its own takes it from a `parent` row: `column` holds the parent's key."""

    parent: "RawTable"
    column: str


@dataclass(frozen=True)
class RawTable:
    """One table of the source: what it must hold (its contract) and how it is loaded.

    A table with `event_time` is a fact, partitioned by month of that column. Where the source does
    not carry the column, `dated_by` says which parent's row gives it. `clustered_by` is a hint to the
    warehouse: columns that queries filter or join on. `longest_text` raises `LONGEST_TEXT_BYTES` for
    single columns.
    """

    name: str
    description: str
    columns: Mapping[str, pa.DataType] = field(hash=False)
    key: tuple[str, ...] = ("id",)
    event_time: str | None = None
    dated_by: DatedBy | None = None
    clustered_by: tuple[str, ...] = ()
    longest_text: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def text_columns(self) -> Mapping[str, int]:
        """The text columns that the source must serve, and how many bytes a value of each may have."""
        texts = [name for name, kind in self.columns.items() if pa.types.is_string(kind)]
        return {name: self.longest_text.get(name, LONGEST_TEXT_BYTES) for name in texts}

    @property
    def shape(self) -> TableShape:
        """The table as the warehouse keeps it."""
        return TableShape(self.name, self.schema, self.description, self.event_time, self.clustered_by)

    @property
    def source_schema(self) -> pa.Schema:
        """The columns that the source must serve, in order."""
        return pa.schema(list(self.columns.items()))

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table in the warehouse, in order."""
        if self.dated_by is None or self.event_time is None:
            return self.source_schema
        return self.source_schema.append(pa.field(self.event_time, TIMESTAMP))


RAW_CUSTOMERS = RawTable(
    "raw_customers",
    "Everybody who has an account with the shop.",
    {"id": ID, "name": TEXT},
)
RAW_ORDERS = RawTable(
    "raw_orders",
    "One row per order; money in cents.",
    {
        "id": ID,
        "customer": ID,
        "ordered_at": TIMESTAMP,
        "store_id": ID,
        "subtotal": CENTS,
        "tax_paid": CENTS,
        "order_total": CENTS,
    },
    event_time="ordered_at",
    clustered_by=("store_id", "customer"),
)
RAW_ITEMS = RawTable(
    "raw_items",
    "One row per product in an order, with the time of its order.",
    {"id": ID, "order_id": ID, "sku": ID},
    event_time="ordered_at",
    dated_by=DatedBy(RAW_ORDERS, "order_id"),
    clustered_by=("order_id", "sku"),
)
RAW_PRODUCTS = RawTable(
    "raw_products",
    "What the shop sells; price in cents.",
    {"sku": ID, "name": TEXT, "type": TEXT, "price": CENTS, "description": TEXT},
    key=("sku",),
    longest_text={"description": 64 * 1024},
)
RAW_STORES = RawTable(
    "raw_stores",
    "The shop's locations and the sales tax rate of each.",
    {"id": ID, "name": TEXT, "opened_at": TIMESTAMP, "tax_rate": RATE},
)
RAW_SUPPLIES = RawTable(
    "raw_supplies",
    "What it takes to make each product; cost in cents.",
    {"id": ID, "name": TEXT, "cost": CENTS, "perishable": FLAG, "sku": ID},
    key=("id", "sku"),
)

TABLES: tuple[RawTable, ...] = (
    RAW_CUSTOMERS,
    RAW_ORDERS,
    RAW_ITEMS,
    RAW_PRODUCTS,
    RAW_STORES,
    RAW_SUPPLIES,
)
