"""The sample shop with a fortieth of its customers: as many days, months and stores, and far fewer rows."""

from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from serverless_assets.sample_shop.shop import SampleShop

ONE_IN = 40


@dataclass(frozen=True, kw_only=True)
class SmallShop(SampleShop):
    """See `SampleShop`. Whole customers are kept, with all their orders and items."""

    def table(self, name: str, start: date | None = None, end: date | None = None) -> pa.Table:
        whole = super().table(name, start, end)
        if name == "raw_customers":
            return whole.filter(self._is_kept(whole["id"]))
        if name == "raw_orders":
            return whole.filter(self._is_kept(whole["customer"]))
        if name == "raw_items":
            orders = self.table("raw_orders", start, end)["id"]
            return whole.filter(pc.is_in(whole["order_id"], value_set=orders.combine_chunks()))
        return whole

    def _is_kept(self, customers: pa.ChunkedArray) -> list[bool]:
        kept = super().table("raw_customers")["id"].to_pylist()[::ONE_IN]
        return pc.is_in(customers, value_set=pa.array(kept, pa.string()))
