"""What published forecasts turned out to be worth."""

from datetime import date, timedelta

import pyarrow as pa
import pytest

from modal_forecast.grain import DAY, MONTH
from serverless_assets.forecasting.accuracy import all_of, score
from serverless_assets.forecasting.record import Record
from serverless_assets.forecasting.report_asset import compared

ALL = all_of(DAY)
FIRST = date(2026, 1, 1)
AS_OF = FIRST + timedelta(days=27)


def series(*values: float) -> pa.Table:
    days = [FIRST + timedelta(days=n) for n in range(len(values))]
    return pa.table({"ds": pa.array(days, pa.date32()), "y": pa.array(values, pa.float64())})


def vintage(yhat: list[float], width: float = 10.0, made: int = 1, run_id: str = "run") -> Record:
    days = [AS_OF + timedelta(days=n) for n in range(1, len(yhat) + 1)]
    bounds = {
        f"yhat_{side}_{level}": [value + sign * width * factor for value in yhat]
        for level, factor in (("80", 1), ("95", 2))
        for side, sign in (("lower", -1), ("upper", 1))
    }
    rows = pa.table({"ds": pa.array(days, pa.date32()), "yhat": yhat, **bounds})
    return record(rows, AS_OF, made_at=f"2026-02-0{made}T00:00:00Z", run_id=run_id)


def record(rows: pa.Table, as_of: date, **facts: str) -> Record:
    known = {"made_at": "2026-02-01T00:00:00Z", "run_id": "run", "forecast_key": "0" * 16}
    return Record(rows, {**known, "data_as_of": as_of.isoformat(), **facts})


# Four weeks of a history whose same weekdays differ by 4, then ten days that came.
HISTORY = [100.0 + 4 * (n // 7) for n in range(28)]


def test_days_that_have_come_are_scored_by_hand():
    [row] = [
        row
        for row in score(
            [vintage([100.0, 110.0, 135.0])], series(*HISTORY, 100.0, 120.0, 120.0), DAY
        ).to_pylist()
        if row["horizon"] == ALL
    ]
    assert row["days"] == 3
    assert row["mase"] == pytest.approx((0 + 10 + 15) / 3 / 4)
    assert row["wape"] == pytest.approx(25 / 340)
    assert row["bias"] == pytest.approx((0 - 10 + 15) / 340)
    # 15 is beyond the 80% bound of 10 and within the 95% bound of 20.
    assert row["coverage_80"] == pytest.approx(2 / 3)
    assert row["coverage_95"] == 1.0


def test_a_day_that_has_not_come_is_not_scored():
    found = score([vintage([100.0] * 30)], series(*HISTORY, *[100.0] * 10), DAY).to_pylist()
    assert {row["horizon"]: row["days"] for row in found} == {ALL: 10, "1 to 7 days": 7, "8 to 30 days": 3}
    assert score([vintage([100.0] * 30)], series(*HISTORY), DAY).num_rows == 0


def test_each_vintage_is_scored_by_itself_the_oldest_first():
    later, sooner = vintage([100.0], made=2, run_id="b"), vintage([90.0], made=1, run_id="a")
    found = score([later, sooner], series(*HISTORY, 100.0), DAY).to_pylist()
    assert [(row["vintage"], row["bias"]) for row in found if row["horizon"] == ALL] == [
        ("a", pytest.approx(-0.1)),
        ("b", 0.0),
    ]


def test_the_scale_is_that_of_the_history_that_the_forecast_knew():
    calm = score([vintage([110.0])], series(*HISTORY, 100.0), DAY).to_pylist()[0]["mase"]
    # What came after is wild, and says nothing of how hard it was to foresee.
    wild = score([vintage([110.0])], series(*HISTORY, 100.0, 9_000.0, 1.0), DAY).to_pylist()[0]["mase"]
    assert calm == wild == pytest.approx(10 / 4)


def test_what_cannot_be_divided_by_is_said_to_be_unknown():
    [row, _] = score([vintage([1.0])], series(*[0.0] * 28, 0.0), DAY).to_pylist()
    assert (row["mase"], row["wape"], row["bias"]) == (None, None, None)


def test_a_vintage_beside_what_came_is_there_to_be_drawn():
    drawn = compared(vintage([100.0, 110.0]), series(*HISTORY, 105.0))
    assert (drawn["yhat"], drawn["actual"], drawn["lower_80"]) == ([100.0], [105.0], [90.0])


def test_a_forecast_by_month_is_scored_by_its_months():
    months = [date(2024 + n // 12, n % 12 + 1, 1) for n in range(28)]
    # Each month brings 10 more than that of the year before.
    actual = pa.table({"ds": pa.array(months, pa.date32()), "y": [100.0 + 10 * (n // 12) for n in range(28)]})
    made = vintage([125.0] * 12)
    rows = made.rows.set_column(0, "ds", pa.array([date(2026, n, 1) for n in range(1, 13)], pa.date32()))
    by_month = record(rows, date(2025, 12, 31), grain="month")
    scores = score([by_month], actual, MONTH).to_pylist()
    assert {row["horizon"]: row["months"] for row in scores} == {
        "all months": 4,
        "1 to 3 months": 3,
        "4 to 6 months": 1,
    }
    assert [row["mase"] for row in scores] == [pytest.approx(0.5)] * 3
    assert all("days" not in row for row in scores)
