"""The series that is forecast."""

from datetime import timedelta

import dagster as dg
import pyarrow as pa

from serverless_assets.warehouse import Warehouse

REVENUE = "daily_revenue"


def read_history(warehouse: Warehouse) -> pa.Table:
    """Daily order revenue of all locations: ds date32, y float64, without gaps."""
    if REVENUE not in warehouse.tables():
        raise dg.Failure(f"There is no {REVENUE} yet: run the transform job first.", allow_retries=False)
    return daily_total(
        warehouse.query(
            f"select ds, sum(revenue_usd) as y from {warehouse.relation(REVENUE)} group by ds order by ds"
        )
    )


def daily_total(revenue: pa.Table) -> pa.Table:
    """A row for every day from the first to the last of `revenue` (ds, y).

    A day without a row had no orders anywhere: its revenue is zero, not unknown.

    Returns:
        ds date32, y float64 in the unit of the input.

    Raises:
        ValueError: there is no row at all.
    """
    days = revenue["ds"].to_pylist()
    if not days:
        raise ValueError("there is no revenue to forecast from")
    known = dict(zip(days, revenue["y"].to_pylist(), strict=True))
    calendar = [min(days) + timedelta(days=n) for n in range((max(days) - min(days)).days + 1)]
    values = [float(known.get(day, 0.0)) for day in calendar]
    return pa.table({"ds": pa.array(calendar, pa.date32()), "y": pa.array(values, pa.float64())})
