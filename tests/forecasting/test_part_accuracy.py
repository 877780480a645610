"""Published forecasts of stores against what came."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from modal_forecast import metrics
from modal_forecast.grain import DAY, GRAINS, MONTH
from modal_forecast.messages import FORECAST_SCHEMA
from serverless_assets.forecasting.part_accuracy import score_parts, superseded, vintages_to_score
from serverless_assets.forecasting.part_history import PartHistories
from serverless_assets.forecasting.record import (
    RecordName,
    list_records,
    part_record,
    read_record,
    write_record,
)
from serverless_assets.forecasting.tables import SCORED_VINTAGES, forecast_schema
from tests.conftest import SHOP

FIRST = date(2026, 1, 1)
AS_OF = FIRST + timedelta(days=59)


class Files(dict[str, bytes]):
    """An artifact store in memory."""

    def names(self, prefix: str) -> list[str]:
        return [name for name in self if name.startswith(prefix)]

    def read(self, name: str) -> bytes | None:
        return self.get(name)

    def write(self, name: str, content: bytes) -> None:
        self[name] = content


def write(files: Files, as_of: date, run_id: str = "run", grain: str = "day", **stores: list[float]) -> None:
    """Write the record of forecasts from the day after `as_of` on, with bounds of 5 and 10 around them."""
    rows = [
        {
            "forecast_run": run_id,
            "forecast_made_on": as_of,
            "location_id": name,
            "location_name": name.upper(),
            "ds": GRAINS[grain].start(as_of, ahead),
            **{f"yhat_lower_{level}": value - width for level, width in ((80, 5), (95, 10))},
            **{f"yhat_upper_{level}": value + width for level, width in ((80, 5), (95, 10))},
            "yhat": value,
        }
        for name, values in stores.items()
        for ahead, value in enumerate(values, 1)
    ]
    facts = {
        "made_at": f"{as_of}T06:00:00Z",
        "data_as_of": str(as_of),
        "store_forecast_key": "0" * 16,
        "run_id": run_id,
        "forecast": "forecast",
        "grain": grain,
    }
    schema = forecast_schema(SHOP.parts.columns)
    write_record(files, part_record(SHOP.parts, pa.Table.from_pylist(rows, schema), facts))


def matrix(**stores: np.ndarray) -> PartHistories:
    longest = max(map(len, stores.values()))
    days = np.datetime64(FIRST) + np.arange(longest)
    values = np.array([np.pad(y, (longest - len(y), 0), constant_values=np.nan) for y in stores.values()])
    return PartHistories([*stores], [name.upper() for name in stores], days, values)


def test_each_store_is_scored_over_all_forecasts_and_by_how_far_ahead_they_saw():
    rng = np.random.default_rng(3)
    actual = matrix(a=rng.uniform(10, 30, 80), b=rng.uniform(0, 9, 70))
    files = Files()
    made = {
        AS_OF: {"a": rng.uniform(10, 30, 40), "b": rng.uniform(0, 9, 40)},
        AS_OF + timedelta(days=7): {"a": rng.uniform(10, 30, 40)},
    }
    for as_of, forecasts in made.items():
        write(files, as_of, **{name: values.tolist() for name, values in forecasts.items()}, gone=[1.0])
    names = list_records(files, "forecast", of_parts=True)
    scores = {
        (row["location_id"], row["horizon"]): row
        for row in score_parts(SHOP.parts, actual, names, files, pytest.fail, DAY).to_pylist()
    }
    assert {id for id, _ in scores} == {"a", "b"}

    def expected(store: int, ahead: slice) -> dict[str, float]:
        y, yhat, scaled = [], [], []
        for as_of, forecasts in made.items():
            values = forecasts.get(actual.ids[store])
            if values is None:
                continue
            start = (as_of - FIRST).days + 1
            came = actual.values[store, start:][ahead]
            past = actual.values[store, :start]
            y.extend(came)
            yhat.extend(values[ahead][: len(came)])
            scale = metrics.seasonal_error(past[~np.isnan(past)], 7)
            scaled.extend(np.abs(came - values[ahead][: len(came)]) / scale)
        y, yhat = np.array(y), np.array(yhat)
        return {
            "days": len(y),
            "mase": np.mean(scaled),
            "wape": np.abs(yhat - y).sum() / y.sum(),
            "bias": (yhat - y).sum() / y.sum(),
            "coverage_80": np.mean(np.abs(yhat - y) <= 5),
            "coverage_95": np.mean(np.abs(yhat - y) <= 10),
        }

    for store, horizon, ahead in [
        (0, "all days", slice(0, 40)),
        (0, "1 to 7 days", slice(0, 7)),
        (1, "8 to 30 days", slice(7, 30)),
    ]:
        row = scores[actual.ids[store], horizon]
        for name, value in expected(store, ahead).items():
            assert row[name] == pytest.approx(value), (store, horizon, name)
    assert (scores["a", "all days"]["forecasts"], scores["b", "all days"]["forecasts"]) == (2, 1)


def test_stores_forecast_by_month_are_scored_by_month_and_a_young_one_by_the_month_before():
    months = MONTH.calendar(np.datetime64("2024-01-01"), np.datetime64("2026-04-01"))
    values = np.vstack([np.arange(28.0) ** 1.5, [np.nan] * 16 + [*np.arange(12.0) ** 2]])
    actual = PartHistories(["old", "young"], ["Old", "Young"], months, values)
    files = Files()
    write(files, date(2025, 12, 31), grain="month", old=[20.0] * 6, young=[20.0] * 6)
    names = list_records(files, "forecast", of_parts=True)
    rows = score_parts(SHOP.parts, actual, names, files, pytest.fail, MONTH).to_pylist()
    assert [(row["location_id"], row["horizon"], row["months"]) for row in rows] == [
        (name, horizon, months)
        for name in ("old", "young")
        for horizon, months in (("all months", 4), ("1 to 3 months", 3), ("4 to 6 months", 1))
    ]
    for row, y, past in (
        (rows[0], values[0, 24:], values[0, :24]),
        (rows[3], values[1, 24:], values[1, 16:24]),
    ):
        scale = metrics.seasonal_error(past, MONTH.season)
        assert row["mase"] == pytest.approx(np.abs(y - 20).mean() / scale)
    assert score_parts(SHOP.parts, actual, names, files, pytest.fail, DAY).num_rows == 0, "of another grain"


def test_a_score_without_a_denominator_is_null():
    # Nothing ever came, and nothing changes from week to week.
    actual = matrix(a=np.zeros(80))
    files = Files()
    write(files, AS_OF, a=[1.0] * 20)
    rows = score_parts(
        SHOP.parts, actual, list_records(files, "forecast", of_parts=True), files, pytest.fail, DAY
    )
    assert {(row["mase"], row["wape"], row["bias"]) for row in rows.to_pylist()} == {(None, None, None)}


def test_the_first_forecast_of_each_week_is_scored_of_half_a_year():
    daily = [
        RecordName(
            datetime(2026, 1, 1, 6, tzinfo=UTC) + timedelta(days=n),
            FIRST + timedelta(days=n),
            "0" * 16,
            f"{n}",
        )
        for n in range(-4, 7 * 40)
    ]
    names = vintages_to_score(daily)
    assert len(names) == SCORED_VINTAGES
    assert {name.data_as_of.weekday() for name in names} == {0}
    assert daily[-1].data_as_of - names[-1].data_as_of < timedelta(days=7)
    kept = {*daily} - {*superseded(daily, names)}
    assert kept == {*names} | {name for name in daily if name.data_as_of > names[-1].data_as_of}
    assert len(kept) > len(names)


def test_no_record_is_deleted_before_one_can_be_scored():
    new = [RecordName(datetime(2026, 1, 1, 6, tzinfo=UTC), FIRST, "0" * 16, "run")]
    assert superseded(new, []) == []


def test_a_record_that_cannot_be_read_is_left_out_with_a_warning():
    actual, files, warnings = matrix(a=np.arange(80.0)), Files(), []
    write(files, AS_OF, a=[1.0] * 20)
    write(files, AS_OF + timedelta(days=7), run_id="broken", a=[1.0] * 20)
    names = list_records(files, "forecast", of_parts=True)
    files.write(str(names[-1]), b"no parquet")
    rows = score_parts(SHOP.parts, actual, names, files, warnings.append, DAY)
    assert rows["forecasts"].to_pylist() == [1] * rows.num_rows and rows.num_rows
    [warning] = warnings
    assert "broken" in warning and "cannot be read" in warning


def test_records_of_parts_are_not_those_of_the_total():
    files = Files()
    write(files, AS_OF, a=[1.0])
    assert list_records(files) == list_records(files, "forecast") == []
    [name] = list_records(files, "forecast", of_parts=True)
    record = read_record(files, name)
    assert record.name == name and name.data_as_of == AS_OF
    assert record.rows.column_names == ["id", *FORECAST_SCHEMA.names]
