import logging
import re
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from modal_forecast.messages import ForecastRefused, ForecastRequest
from modal_forecast.model import forecast

DAY = date(2022, 1, 1)
BOUNDS = ["yhat_lower_95", "yhat_lower_80", "yhat", "yhat_upper_80", "yhat_upper_95"]


def series(values, first=DAY, every=1):
    days = np.datetime64(first) + every * np.arange(len(values))
    return pa.table({"ds": days, "y": np.asarray(values, dtype=float)})


def shop(days, level=1000.0, noise=50.0, seed=0):
    """A shop that is closed on the first and second of every seven days."""
    day = np.arange(days)
    week = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 1.2, 1.5])[day % 7]
    return np.maximum(week * (level + day) + np.random.default_rng(seed).normal(0, noise, days), 0.0)


def falling(to, days=100):
    # Not exactly a line: Stan takes seconds over a history without any noise.
    return np.linspace(1000, to, days) + np.append(np.random.default_rng(0).uniform(0, 5, days - 1), 0.0)


def predict(values, horizon=30, country=None, log=lambda _line: None):
    table = values if isinstance(values, pa.Table) else series(values)
    return forecast(ForecastRequest(table, horizon, country), log)


def columns(answer, names):
    return np.array([answer.forecast[name].to_numpy() for name in names])


@pytest.fixture(scope="module")
def request_of_a_shop():
    return ForecastRequest(series(shop(800)), 60, "US")


@pytest.fixture(scope="module")
def answer_and_log(request_of_a_shop):
    logged = []
    return forecast(request_of_a_shop, logged.append), logged


@pytest.fixture(scope="module")
def answer(answer_and_log):
    return answer_and_log[0]


def test_the_same_request_gives_the_same_bytes(request_of_a_shop, answer):
    assert forecast(request_of_a_shop).to_bytes() == answer.to_bytes()


def test_numpys_global_generator_stays_as_it_was():
    np.random.seed(42)
    expected = np.random.random()
    np.random.seed(42)
    predict(shop(60))
    assert np.random.random() == expected


def test_intervals_nest_around_the_forecast(answer):
    assert (np.diff(columns(answer, BOUNDS), axis=0) >= 0).all()


def test_intervals_hold_the_forecast_even_if_every_sample_misses_it(monkeypatch):
    for beyond in (1e6, 0.0):
        monkeypatch.setattr(
            "modal_forecast.model._sample", lambda *_, beyond=beyond: np.full((2000, 30), beyond)
        )
        assert (np.diff(columns(predict(shop(60)), BOUNDS), axis=0) >= 0).all()


def test_the_wider_interval_is_about_as_much_wider_as_for_a_normal_error(answer):
    lower_95, lower_80, _, upper_80, upper_95 = columns(answer, BOUNDS)
    assert np.median((upper_95 - lower_95) / (upper_80 - lower_80)) == pytest.approx(1.96 / 1.28, rel=0.1)


def test_the_horizon_is_complete_from_the_day_after_the_last(request_of_a_shop, answer):
    last = request_of_a_shop.history["ds"][-1].as_py()
    assert answer.forecast["ds"].to_pylist() == [last + timedelta(days=n) for n in range(1, 61)]
    assert all(column.null_count == 0 for column in answer.forecast.columns)


def test_the_horizon_starts_after_the_last_day_also_if_that_is_missing():
    answer = predict([*shop(60), *[np.nan] * 10], horizon=5)
    assert answer.forecast["ds"][0].as_py() == DAY + timedelta(days=70)
    assert answer.forecast.num_rows == 5


def test_uncertainty_grows_from_the_last_day_with_a_value_not_from_the_last_row():
    # A trend that turns often makes the uncertainty of the trend outweigh the noise.
    walk = 1e4 + np.cumsum(np.random.default_rng(3).normal(0, 10, 200))
    at_once = predict([*walk, *[np.nan] * 300], horizon=1)
    on_the_way = predict(walk, horizon=301)

    def width(answer):
        return answer.forecast["yhat_upper_95"][-1].as_py() - answer.forecast["yhat_lower_95"][-1].as_py()

    assert width(at_once) == pytest.approx(width(on_the_way), rel=0.1)


def test_a_weekly_pattern_is_recovered(answer):
    day = (answer.forecast["ds"].to_numpy() - np.datetime64(DAY)).astype(int)
    yhat = answer.forecast["yhat"].to_numpy()
    truth = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 1.2, 1.5])[day % 7] * (1000 + day)
    assert np.corrcoef(yhat, truth)[0, 1] > 0.95


def test_a_holiday_is_recovered():
    values, days = np.full(1100, 1000.0), series(np.zeros(1100))["ds"].to_pylist()
    values += np.random.default_rng(0).normal(0, 10, 1100)
    values[[(day.month, day.day) == (7, 4) for day in days]] = 5000.0
    answer = predict(values, horizon=365, country="US")
    peak = answer.forecast["ds"][int(np.argmax(answer.forecast["yhat"].to_numpy()))].as_py()
    assert (peak.month, peak.day) == (7, 4)
    assert answer.diagnostics["holidays"] > 5


def test_the_80_percent_interval_holds_about_80_percent_of_what_comes_next():
    values = 1000 + np.random.default_rng(5).normal(0, 100, 600)
    answer = predict(values[:500], horizon=100)
    _, lower_80, _, upper_80, _ = columns(answer, BOUNDS)
    assert 0.65 < ((lower_80 <= values[500:]) & (values[500:] <= upper_80)).mean() < 0.95


def test_revenue_is_never_forecast_below_zero():
    logged = []
    answer = predict(falling(to=0), horizon=30, log=logged.append)
    assert columns(answer, BOUNDS).min() == 0.0
    assert answer.diagnostics["clipped_yhat_days"] > 25
    assert answer.diagnostics["clipped_days"] == 30
    assert "clipped at zero: 30 of 30 days" in logged[-1]


def test_a_series_that_has_been_negative_may_become_so_again():
    answer = predict(falling(to=-1), horizon=30)
    assert answer.forecast["yhat"].to_numpy().max() < 0
    assert answer.diagnostics["clipped_days"] == 0


def test_rows_in_any_order_give_the_same_forecast():
    table = series(shop(60))
    assert predict(table.take(list(reversed(range(60))))).to_bytes() == predict(table).to_bytes()


def test_a_missing_day_may_be_absent_or_empty():
    values = shop(70)
    empty = series(values).set_column(
        1, "y", pa.array([None if n % 5 == 3 else v for n, v in enumerate(values)])
    )
    absent = series(values).take([n for n in range(70) if n % 5 != 3])
    answer = predict(empty)
    assert answer.to_bytes() == predict(absent).to_bytes()
    assert answer.diagnostics["n_missing"] == 14


@pytest.mark.parametrize("level", [0.0, 5.0, -5.0, 1e-300, 1e100])
def test_a_constant_series_is_forecast_as_itself(level):
    answer = predict(np.full(100, level))
    assert (columns(answer, BOUNDS) == level).all()
    assert answer.diagnostics["clipped_days"] == 0
    assert answer.diagnostics["model"] == "constant"


@pytest.mark.parametrize(
    "awkward",
    [
        pytest.param(series(shop(14)), id="tiny"),
        pytest.param(series(shop(15), every=40), id="gappy"),
        pytest.param(series([*[0.0] * 50, 1.0]), id="one sale ever"),
        pytest.param(series(5 + 1e-12 * shop(120)), id="all but constant"),
        pytest.param(series(1e-300 * shop(60)), id="tiny values"),
        pytest.param(series(1e95 * shop(60)), id="huge values"),
        pytest.param(series(shop(60), first=date(1900, 1, 1)), id="long ago"),
        pytest.param(series(shop(60), first=date(2199, 11, 1)), id="far ahead"),
    ],
)
def test_an_awkward_series_gets_a_finite_forecast_with_nested_intervals(awkward):
    answer = predict(awkward, horizon=40, country="US")
    assert np.isfinite(columns(answer, BOUNDS)).all()
    assert (np.diff(columns(answer, BOUNDS), axis=0) >= 0).all()


def test_a_request_that_cannot_be_forecast_is_refused_before_anything_is_logged():
    logged = []
    with pytest.raises(ForecastRefused, match="needs 14 or more"):
        predict([1.0, 2.0], log=logged.append)
    assert logged == []


def test_the_log_tells_what_happened(answer_and_log):
    _, logged = answer_and_log
    expected = [
        r"history: 800 days with a value, 2022-01-01 to 2024-03-10, 0 missing",
        r"Prophet [\d.]+ loaded in [\d.]+ s",
        r"fit started: 800 points, the holidays of US",
        r"fit took [\d.]+ s: trend, yearly and weekly seasonality, the holidays of US",
        r"predicted 60 days, 2024-03-11 to 2024-05-09, in [\d.]+ s \(2,000 posterior samples\)",
        r"clipped at zero: \d+ of 60 days, the forecast itself on \d+",
    ]
    assert len(logged) == len(expected)
    assert [
        line for line, pattern in zip(logged, expected, strict=True) if not re.fullmatch(pattern, line)
    ] == []


def test_a_short_history_is_said_to_have_no_yearly_seasonality():
    logged = []
    predict(shop(60), log=logged.append)
    assert "less than two years of history: no yearly seasonality" in logged


def test_the_diagnostics_say_how_the_forecast_was_made(answer):
    of = answer.diagnostics
    assert (of["n_history"], of["n_missing"], of["horizon"], of["country"]) == (800, 0, 60, "US")
    assert (of["first_ds"], of["last_ds"]) == ("2022-01-01", "2024-03-10")
    assert (of["model"], of["seasonalities"]) == ("prophet", ["yearly", "weekly"])
    assert {"python", "prophet", "pandas", "numpy"} <= of["versions"].keys()


def test_nothing_is_printed_and_stans_chatter_does_not_reach_the_log(capfd, caplog):
    with caplog.at_level(logging.DEBUG):
        predict(shop(60), country="US")
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name.startswith(("prophet", "cmdstanpy"))] == []
    assert not logging.getLogger("cmdstanpy").disabled


def test_stan_leaves_no_files_behind(tmp_path, monkeypatch):
    import cmdstanpy

    for module in ("cmdstanpy", "cmdstanpy.model", "cmdstanpy.stanfit.runset", "cmdstanpy.utils.filesystem"):
        monkeypatch.setattr(f"{module}._TMPDIR", str(tmp_path), raising=False)
    assert str(tmp_path) == cmdstanpy._TMPDIR
    predict(shop(60))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
