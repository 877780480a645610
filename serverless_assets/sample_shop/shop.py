"""The tables of the sample shop, computed from a seed and a day: each day adds rows to a fixed past."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

import pyarrow as pa

from serverless_assets.sample_shop.catalogue import FOUNDED, PRODUCTS, STORES, SUPPLIES
from serverless_assets.sample_shop.sales import customer_ids, customer_names, customers_by, sales, texts

ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class SampleShop:
    """A shop at the close of a day. Two shops of one seed agree on every day that they share.

    Attributes:
        seed: which shop it is; not negative.
        end: the last day of its history.
    """

    seed: int = 7
    end: date

    @property
    def start(self) -> date:
        """Return the first day of the history: the first of a month, as no month is partial."""
        return date(self.end.year - 2, self.end.month, 1)

    def clip(self, start: date | None = None, end: date | None = None) -> tuple[date, date]:
        """Return the window from `start` up to `end` (exclusive) as far as there is history.

        Without a bound the window reaches as far as the history does. Every window without a day in it
        is returned as the same one.
        """
        first = max(start or self.start, self.start)
        stop = min(end or date.max, self.end + ONE_DAY)
        return (first, stop) if first < stop else (self.start, self.start)

    def table(self, name: str, start: date | None = None, end: date | None = None) -> pa.Table:
        """Return the rows of a table, facts in order of time.

        `start` and `end` choose the facts of a window, as in `clip`; a snapshot is always whole.

        Raises:
            KeyError: there is no such table.
        """
        match name:
            case "raw_orders" | "raw_items":
                batches = [sales(self.seed, day)[name] for day in self._days(start, end)]
                # A window without a day has the schema of any other.
                return pa.Table.from_batches(batches, sales(self.seed, self.end)[name].schema)
            case "raw_customers":
                count = customers_by(self.end)
                names = texts(customer_names(self.seed, count))
                return pa.table({"id": texts(customer_ids(range(count))), "name": names})
            case "raw_products":
                of_product = ("sku", "name", "type", "price", "description")
                return pa.table(
                    {column: [getattr(product, column) for product in PRODUCTS] for column in of_product}
                )
            case "raw_stores":
                stores = [store for store in STORES if store.opened <= self.end]
                opened = [datetime.combine(store.opened, time()) for store in stores]
                return pa.table(
                    {
                        "id": texts([store.id for store in stores]),
                        "name": texts([store.name for store in stores]),
                        "opened_at": pa.array(opened, pa.timestamp("us")),
                        "tax_rate": pa.array([store.tax_rate for store in stores], pa.float64()),
                    }
                )
            case "raw_supplies":
                parts = [(supply, sku) for supply in SUPPLIES for sku in supply.skus]
                of_supply = ("id", "name", "cost", "perishable")
                supplies = {column: [getattr(supply, column) for supply, _ in parts] for column in of_supply}
                return pa.table({**supplies, "sku": [sku for _, sku in parts]})
        raise KeyError(name)

    def changed_on(self, name: str, start: date | None = None, end: date | None = None) -> date | None:
        """Return the last day that changed what `table` returns for these arguments; None for no rows.

        It follows from the content: a day without trade changes nothing.
        """
        match name:
            case "raw_orders" | "raw_items":
                days = reversed(self._days(start, end))
                last_trade = next((day for day in days if sales(self.seed, day)["raw_orders"].num_rows), None)
                if last_trade and (start is None or start < self.start):
                    # Such a window also lost rows on the day that moved the start of the history.
                    return max(last_trade, self.end.replace(day=1))
                return last_trade
            case "raw_customers":
                # Somebody signs up every day, even on holidays.
                return self.end if self.end >= FOUNDED else None
            case "raw_stores":
                return max((store.opened for store in STORES if store.opened <= self.end), default=None)
        return FOUNDED

    def _days(self, start: date | None, end: date | None) -> list[date]:
        first, stop = self.clip(start, end)
        return [first + timedelta(days=n) for n in range((stop - first).days)]
