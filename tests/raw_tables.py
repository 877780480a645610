"""The raw tables of a small shop, as tests declare them: a new table of the project changes none of them."""

import pyarrow as pa

from serverless_assets.ingestion.raw_table import TIMESTAMP, DatedBy, RawTable

ID = TEXT = pa.string()
CENTS, RATE, FLAG = pa.int64(), pa.float64(), pa.bool_()

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
