"""Each store has a forecast, and on every day the stores add up to the total that people read."""

from datetime import date, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from modal_forecast.batch import forecast_batch
from modal_forecast.grain import DAY
from modal_forecast.messages import ForecastBatch
from serverless_assets.forecasting.checks import PART_DESCRIPTIONS
from serverless_assets.forecasting.compute import Answered, WorkerFailed
from serverless_assets.forecasting.local_compute import LocalCompute
from serverless_assets.forecasting.part_history import parts_in
from serverless_assets.forecasting.parts import adding_up_to
from serverless_assets.run_inputs import CustomisedStyle, RunForecast, RunInputs, SkipForecast
from tests.conftest import SHOP, Pipeline
from tests.test_pipeline import change_work

FIRST = date(2026, 1, 1)


def revenue(**sold: list[float | None]) -> pa.Table:
    """Rows of daily_revenue; None is a day without a row."""
    rows = [
        {
            "ds": FIRST + timedelta(days=n),
            "id": name,
            "name": name.upper(),
            "y": value,
            "events": 10,
        }
        for name, values in sold.items()
        for n, value in enumerate(values)
        if value is not None
    ]
    return pa.Table.from_pylist(rows)


def calendar(days: int) -> pa.Table:
    """The days of the history of all stores."""
    return pa.table({"ds": pa.array([FIRST + timedelta(days=n) for n in range(days)], pa.date32())})


def test_a_day_without_a_row_is_one_on_which_the_store_sold_nothing():
    stores = parts_in(revenue(a=[1.0, None, 3.0, None], b=[None, 5.0, 5.0, 5.0]), calendar(4), DAY)
    assert (stores.ids, stores.names) == (["a", "b"], ["A", "B"])
    a, b = map(stores.history, range(2))
    assert a["y"].to_pylist() == [1.0, 0.0, 3.0, 0.0]
    # It had not opened.
    assert b["ds"][0].as_py() == FIRST + timedelta(days=1)
    assert b["y"].to_pylist() == [5.0, 5.0, 5.0]


def test_stores_add_up_to_the_published_total_which_stays_as_it_is():
    days = 60
    stores = parts_in(
        revenue(
            a=[100.0 + 10 * (n % 7) for n in range(days)],
            b=[50.0 + 9 * (n % 5) for n in range(days)],
            new=[None] * (days - 5) + [8.0] * 5,
        ),
        calendar(days),
        DAY,
    )
    ahead = pa.array([FIRST + timedelta(days=days + n) for n in range(14)], pa.date32())
    bounds = {f"yhat_{side}_{level}": [250.0] * 14 for level in (80, 95) for side in ("lower", "upper")}
    total = pa.table({"ds": ahead, "yhat": [250.0] * 14, **bounds})
    history = calendar(days).append_column("y", pa.array(np.nansum(stores.values, axis=0)))
    batch = stores.request(SHOP, 14)
    made = adding_up_to(total, history, batch, forecast_batch(batch).answers)
    assert set(made) == {"a", "b", "new"}
    assert sum(made[name].forecast["yhat"].to_numpy() for name in made) == pytest.approx([250.0] * 14)
    # Too short to be forecast by itself.
    assert "share of the total" in made["new"].diagnostics["fallbacks"][0]


# ---- in the pipeline


def gaps(pipeline: Pipeline) -> list[float]:
    return [
        gap
        for (gap,) in pipeline.published_rows(
            "select abs(s.y - f.yhat) from dwh.order_forecast f"
            " left join (select ds, sum(yhat) as y from dwh.store_forecast group by 1) s using (ds)"
        )
    ]


def test_published_stores_add_up_on_every_day(green):
    assert len(gaps(green)) == 180
    assert max(gaps(green)) < 1e-6
    [(stores,)] = green.published_rows("select count(distinct location_id) from dwh.store_forecast")
    assert stores == 6


def test_the_report_shows_each_store(green):
    page = (green.home / "artifacts" / "forecast.html").read_text()
    for (name,) in green.published_rows("select distinct location_name from dwh.store_forecast"):
        assert name in page


def test_a_skipped_forecast_skips_the_stores(pipeline):
    assert pipeline.run(RunInputs(forecast=SkipForecast()), job="forecast").success
    assert pipeline.summary["assets"]["store_forecast"]["status"] == "skipped"


STORES, STORE_FORECAST = 6, dg.AssetKey("store_forecast")


@pytest.fixture
def requests(monkeypatch) -> list[ForecastBatch]:
    """The requests that the compute gets."""
    run, received = LocalCompute.run, []

    def recorded(self, request: bytes, *rest: Any) -> Answered:
        received.append(ForecastBatch.from_bytes(request))
        return run(self, request, *rest)

    monkeypatch.setattr(LocalCompute, "run", recorded)
    return received


def test_the_total_and_the_stores_are_one_call_that_answers_as_two_would(short, requests):
    pipeline = short

    def forecasts() -> list[pa.Table]:
        return [
            pipeline.published(f"select * exclude ({columns}) from dwh.{name} order by all")
            for name, columns in (
                ("order_forecast", "forecast_run, forecast_made_on"),
                ("store_forecast", "forecast_run"),
            )
        ]

    change_work(
        pipeline,
        "drop table dwh.store_forecast; drop table dwh.order_forecast;"
        # A store may have any id.
        "update dwh.daily_revenue set location_id = 'total'"
        " where location_id = (select min(location_id) from dwh.daily_revenue)",
    )
    assert pipeline.run(job="forecast").success
    assert [len(request.histories) for request in requests] == [STORES + 1]
    # What was dropped by hand is made again.
    assert pipeline.reason("order_forecast") == "first forecast"
    assert pipeline.reason("store_forecast") == "first forecast of stores"
    assert pipeline.facts("store_forecast")["stores"] == STORES
    together = forecasts()
    # Each by itself.
    for asset, series in (("order_forecast", 1), ("store_forecast", STORES)):
        requests.clear()
        assert pipeline.run(RunInputs(rebuild="all"), assets=[asset]).success
        assert [len(request.histories) for request in requests] == [series]
        assert set(pipeline.summary["assets"]) == {asset}
    assert forecasts() == together
    # Rows that were changed by hand and no longer add up are made again, and the total is not.
    change_work(
        pipeline, "update dwh.store_forecast set yhat = yhat - 1 where yhat - 1 > yhat_lower_80 and yhat > 2"
    )
    result = pipeline.run(job="forecast")
    assert result.success
    assert pipeline.reason("store_forecast").startswith("forecasts_add_up: ")
    assert pipeline.summary["assets"]["order_forecast"]["status"] == "reused"
    assert forecasts() == together
    checks = [check for check in result.get_asset_check_evaluations() if check.asset_key == STORE_FORECAST]
    assert {check.check_name for check in checks if check.passed} >= {*PART_DESCRIPTIONS}
    # Each is kept, for its accuracy.
    vintages = pipeline.artifacts.names("forecast-parts-record-")
    assert any(result.run_id in name for name in vintages)


def test_stores_that_fail_leave_the_new_total_and_are_all_that_the_next_run_makes(
    short, requests, monkeypatch
):
    pipeline, run = short, LocalCompute.run

    def refuse_stores(self, request: bytes, *rest: Any) -> Answered:
        if len(ForecastBatch.from_bytes(request).histories) > 1:
            raise WorkerFailed("A store broke.")
        return run(self, request, *rest)

    thirty = RunInputs(forecast=RunForecast(style=CustomisedStyle(nr_days_fcst=30)))
    with monkeypatch.context() as failing:
        failing.setattr(LocalCompute, "run", refuse_stores)
        assert not pipeline.run(thirty, job="forecast").success
    assets = pipeline.summary["assets"]
    assert (assets["order_forecast"]["status"], assets["order_forecast"]["rows"]) == ("built", 30)
    assert (assets["store_forecast"]["status"], assets["store_forecast"]["reason"]) == (
        "failed",
        "A store broke.",
    )
    assert assets["forecast_report"]["status"] == "skipped"
    # People still read the release before.
    assert len(gaps(pipeline)) == 180
    requests.clear()
    assert pipeline.run(thirty, job="forecast").success
    assert [len(request.histories) for request in requests] == [STORES]
    assert pipeline.summary["assets"]["order_forecast"]["status"] == "reused"
    assert pipeline.reason("store_forecast") == "new total, stores or code"
    assert len(gaps(pipeline)) == 30
    assert max(gaps(pipeline)) < 1e-6
