"""What the report and the asset page show of the parts: the largest one by one, all others together."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modal_forecast.messages import FORECAST_SCHEMA, ForecastAnswer
from modal_forecast.report.formats import plural
from serverless_assets.forecasting.declaration import ForecastDeclaration, Parts
from serverless_assets.forecasting.history import HistoryError, read_history_until
from serverless_assets.forecasting.part_history import PartHistories, data_as_of, read_part_histories
from serverless_assets.warehouse import Warehouse

LARGEST_PARTS = 20
# In the state of the table of parts.
SUM_WIDTHS = "sum_widths"


def reported_parts(
    declaration: ForecastDeclaration, warehouse: Warehouse, total: pa.Table
) -> list[Mapping[str, Any]]:
    """Return the parts as ReportInput has them; none if their forecasts belong to another total."""
    parts = declaration.parts
    if parts is None or parts.asset not in warehouse.tables():
        return []
    try:
        history = read_history_until(declaration, warehouse, data_as_of(total))
    except HistoryError:
        return []
    histories = read_part_histories(declaration, parts, warehouse, history)
    widths: Any = warehouse.read_state(parts.asset).get(SUM_WIDTHS) or {}
    return largest_parts(parts, histories, warehouse.read_rows(parts.asset), total, widths)


def sum_widths(answers: Mapping[str, ForecastAnswer]) -> dict[str, dict[str, float]]:
    """Return how wide the bounds of sums are of each of the largest parts, to be kept as SUM_WIDTHS.

    By id, as intervals.about_sums() measured it: the number of periods -> width; none for a part whose
    back-test has too few sums.
    """
    expected = {id: float(answer.forecast["yhat"].to_numpy().sum()) for id, answer in answers.items()}
    widths = {}
    for id in ranked_ids(expected)[: LARGEST_PARTS + 1]:
        sums = (answers[id].diagnostics.get("backtest") or {}).get("sums") or {}
        widths[id] = {count: measured["width"] for count, measured in sums.items()}
    return widths


def ranked_ids(expected: Mapping[str, float | None]) -> list[str]:
    """Return the ids of parts by what is expected of them, the largest first."""
    return sorted(expected, key=lambda id: (-(expected[id] or 0.0), id))


def largest_parts(
    parts: Parts,
    histories: PartHistories,
    rows: pa.Table,
    total: pa.Table,
    widths: Mapping[str, Mapping[str, float]],
) -> list[Mapping[str, Any]]:
    """Return name, history, forecast and widths of the largest parts, and of all others together.

    By name, the others last, with their `count`; none if rows are not of these parts and of the days of the
    total.

    rows: those of the table of parts, in any order. widths: as sum_widths() returns them.
    """
    sums = rows.group_by(parts.id).aggregate([("yhat", "sum"), ("ds", "count")])
    expected = dict(zip(sums[parts.id].to_pylist(), sums["yhat_sum"].to_pylist(), strict=True))
    ids = histories.ids
    if set(expected) != set(ids):
        return []
    numbers = {id: part for part, id in enumerate(ids)}
    ranked = [numbers[id] for id in ranked_ids(expected)]
    largest = ranked[:LARGEST_PARTS] if len(ranked) > LARGEST_PARTS + 1 else ranked
    is_largest = pc.is_in(rows[parts.id], pa.array([ids[part] for part in largest], pa.string()))
    forecasts, days = rows.filter(is_largest).sort_by("ds"), total["ds"].to_pylist()
    reported: list[Mapping[str, Any]] = []
    for part in sorted(largest):
        forecast = forecasts.filter(pc.equal(forecasts[parts.id], ids[part])).select(FORECAST_SCHEMA.names)
        if forecast["ds"].to_pylist() != days:
            return []
        name, history = histories.names[part], histories.history(part)
        reported.append(
            {"name": name, "history": history, "forecast": forecast, "widths": widths.get(ids[part], {})}
        )
    if others := ranked[len(largest) :]:
        y = np.nansum(histories.values[others], axis=0)
        by_day = rows.filter(pc.invert(is_largest)).group_by("ds").aggregate([("yhat", "sum")]).sort_by("ds")
        if by_day["ds"].to_pylist() != days:
            return []
        # Bounds of a sum are not the sum of bounds.
        bounds = [pa.nulls(len(days), pa.float64())] * (len(FORECAST_SCHEMA) - 2)
        forecast = pa.table([by_day["ds"], by_day["yhat_sum"], *bounds], schema=FORECAST_SCHEMA)
        reported.append(
            {
                "name": f"{len(others):,} other {plural(parts.noun)}",
                "count": len(others),
                "history": pa.table({"ds": pa.array(histories.days, pa.date32()), "y": y}),
                "forecast": forecast,
            }
        )
    return reported


def next_days(
    declaration: ForecastDeclaration, parts: Parts, reported: list[Mapping[str, Any]]
) -> dg.TableMetadataValue:
    """Return each part's expected total of what comes next beside its total of as many periods before."""
    grain = declaration.time_grain
    records, unit = [], f", {declaration.unit}" if declaration.unit else ""
    for part in reported:
        ahead = part["forecast"]["yhat"].to_pylist()[: grain.windows[1]]
        before = part["history"]["y"].to_pylist()[-grain.windows[1] :]
        records.append(
            dg.TableRecord(
                {
                    parts.noun: part["name"],
                    f"next {grain.counted(len(ahead))}{unit}": round(sum(ahead), 2),
                    f"last {grain.counted(len(before))}{unit}": round(sum(before), 2),
                }
            )
        )
    return dg.MetadataValue.table(records)
