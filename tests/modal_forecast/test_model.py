import json
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


def test_intervals_nest_around_the_forecast(answer):
    assert (np.diff(columns(answer, BOUNDS), axis=0) >= 0).all()


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
    effects = {of["holiday"]: of["day"] for of in answer.diagnostics["components"]["holidays"]}
    assert max(effects, key=effects.get) == "Independence Day"


def test_the_80_percent_interval_holds_about_80_percent_of_what_comes_next():
    values = 1000 + np.random.default_rng(5).normal(0, 100, 600)
    answer = predict(values[:500], horizon=100)
    _, lower_80, _, upper_80, _ = columns(answer, BOUNDS)
    assert 0.65 < ((lower_80 <= values[500:]) & (values[500:] <= upper_80)).mean() < 0.95


def test_revenue_is_never_forecast_below_zero():
    logged = []
    answer = predict(falling(to=0), horizon=30, log=logged.append)
    assert columns(answer, BOUNDS).min() == 0.0
    assert answer.diagnostics["clipped_days"] > 20
    clipped = answer.diagnostics["clipped_days"]
    forecast = answer.diagnostics["clipped_yhat_days"]
    itself = f" and the forecast itself on {forecast}" if forecast else ""
    assert logged[-1].endswith(f"values raised to zero: bounds on {clipped} of 30 days{itself}")
    assert min(answer.diagnostics["last_origin"]["lower_80"]) == 0


def test_a_series_that_is_often_negative_may_become_so_again():
    answer = predict(falling(to=-100), horizon=30)
    assert columns(answer, BOUNDS).min() < 0
    assert answer.diagnostics["clipped_days"] == 0


def test_a_series_that_fell_below_zero_four_weeks_ago_may_stay_there():
    values = 100 + np.random.default_rng(0).normal(0, 5, 1000)
    values[-20:] -= 150
    assert columns(predict(values), BOUNDS).min() < 0


def closed_on_sundays(refunds):
    """A year of a shop that is closed on Sundays, and refunds by day of it. The days begin on a Saturday."""
    day = np.arange(400)
    values = np.where(day % 7 == 1, 0.0, 1000 + 100 * (day % 7 == 0))
    values += np.where(values > 0, np.random.default_rng(2).normal(0, 30, len(day)), 0.0)
    for when, refund in refunds.items():
        values[when] = refund
    return values


@pytest.fixture(scope="module")
def without_refunds():
    return predict(closed_on_sundays({}), horizon=28)


SUNDAY = 1 + 7 * 18  # Nine months before the last day.


@pytest.mark.parametrize(
    "refunds",
    [
        {SUNDAY: -3.18},
        {SUNDAY: -50_000.0},
        {SUNDAY + 1: -3.18},
        {1: -3.18},
        {393: -3.18},
        {399: -3.18},
        {1 + 7 * week: -9.0 for week in range(0, 57, 3)},
    ],
    ids=["small", "huge", "on an open day", "first", "last Sunday", "last day", "on every third Sunday"],
)
def test_a_few_refunds_change_neither_closed_days_nor_the_bounds_at_zero(without_refunds, refunds):
    answer = predict(closed_on_sundays(refunds), horizon=28)
    assert columns(answer, BOUNDS).min() == 0
    sundays = (np.arange(400, 428) % 7) == 1
    assert (columns(answer, ["yhat"])[0][sundays] == 0).all()
    [expected], [made] = columns(without_refunds, ["yhat"]), columns(answer, ["yhat"])
    assert made == pytest.approx(expected, rel=0.05)
    assert "Closed on Sunday: forecast as zero." in answer.diagnostics["fallbacks"]
    assert any("below zero" in sentence for sentence in answer.diagnostics["fallbacks"])


def test_a_refund_on_a_closed_holiday_does_not_open_it():
    days = np.datetime64("2022-01-01") + np.arange(1000)
    values = 1000 + np.random.default_rng(3).normal(0, 30, len(days))
    values[np.isin(days, np.array(["2022-12-25", "2023-12-25"], "datetime64[D]"))] = [0.0, -12.5]
    answer = predict(pa.table({"ds": days, "y": values}), horizon=120, country="US")
    made = dict(zip(answer.forecast["ds"].to_pylist(), answer.forecast["yhat"].to_pylist(), strict=True))
    assert made[date(2024, 12, 25)] == 0


def test_a_history_of_zeros_and_one_refund_is_forecast_as_zero():
    values = np.zeros(500)
    values[300] = -3.18
    assert (columns(predict(values), ["yhat"]) == 0).all()


def test_money_that_is_negative_on_every_day_is_forecast_as_negative():
    answer = predict(-closed_on_sundays({}) - 10)
    assert columns(answer, ["yhat"]).max() < 0
    assert answer.diagnostics["n_negative"] == 400


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
        r"  history: 800 days with a value, 2022-01-01 to 2024-03-10, 0 missing, \d+ zero, 0 negative",
        r"  back-test: \d+ forecasts from 6 earlier days, the holidays of US, [\d.]+ s",
        r"  Prophet [\d.]+ (takes part|was too far off to take part), [\d.]+ s",
        r"  combined: \d+% [A-Z][\w ',]+(; \d+% [A-Z][\w ',]+)*",
        r"  In 6 back-tests of 60 days, the forecast's mean error was \d+% smaller .*; .* in \d of 6\.",
        r"  negative values raised to zero: bounds on \d+ of 60 days",
    ]
    assert len(logged) == len(expected)
    assert [
        line for line, pattern in zip(logged, expected, strict=True) if not re.fullmatch(pattern, line)
    ] == []


def test_the_diagnostics_say_how_the_forecast_was_made(answer):
    of = answer.diagnostics
    assert (of["n_history"], of["n_missing"], of["horizon"], of["country"]) == (800, 0, 60, "US")
    assert (of["first_ds"], of["last_ds"]) == ("2022-01-01", "2024-03-10")
    assert of["model"] == "combination"
    assert sum(of["weights"].values()) == pytest.approx(1, abs=0.01)
    assert {"python", "prophet", "holidays", "numpy"} <= of["versions"].keys()
    assert len(json.dumps(of)) < 20_000


def test_the_diagnostics_say_how_good_every_candidate_was(answer):
    of = answer.diagnostics
    assert {"mase", "wape", "bias", "coverage_80", "coverage_95", "origins", "horizon"} <= of[
        "backtest"
    ].keys()
    assert {"prophet", "linear_flat", "seasonal_naive_7", "seasonal_naive_364"} <= of["candidates"].keys()
    assert of["candidates"]["prophet"]["origins"] in (1, 2)
    assert len(of["last_origin"]["actual"]) == len(of["last_origin"]["forecast"]) == 60
    assert of["last_origin"]["first_ds"] == "2024-01-11"


def test_a_shop_with_seasons_beats_the_seasonal_naives(answer):
    of = answer.diagnostics
    naive = of["candidates"][of["best_naive"]]["mase"]
    assert of["beats_naive"] is True
    assert of["skill"] == pytest.approx(1 - of["backtest"]["mase"] / naive, abs=0.01)


@pytest.fixture(scope="module")
def random_walks():
    """Walks and the answers to them."""
    walks = [1e4 + np.cumsum(np.random.default_rng(seed).normal(0, 10, 500)) for seed in range(4)]
    return [(walk, predict(walk, horizon=60)) for walk in walks]


def test_random_walks_are_not_said_to_be_forecast_much_better_than_by_repeating_them(random_walks):
    for _, answer in random_walks:
        assert answer.diagnostics["beats_naive"] is (answer.diagnostics["skill"] > 0)
    assert np.mean([answer.diagnostics["skill"] for _, answer in random_walks]) < 0.1


def test_where_nothing_beats_repeating_last_week_the_forecast_repeats_it(random_walks):
    beaten = [(walk, answer) for walk, answer in random_walks if answer.diagnostics["skill"] == 0]
    assert beaten
    for walk, answer in beaten:
        of, made = answer.diagnostics, answer.forecast["yhat"].to_numpy()
        period = {"seasonal_naive_7": 7, "seasonal_naive_364": 364}[of["best_naive"]]
        assert of["weights"] == {of["best_naive"]: 1.0}
        assert made == pytest.approx(np.resize(walk[-period:], 60))
        assert "that is the forecast" in of["why"]
    assert min(answer.diagnostics["skill"] for _, answer in random_walks) >= 0


def test_a_history_too_short_to_tell_is_not_made_to_repeat_itself_by_a_little_bad_luck():
    margins = {}
    for days in (300, 1200):
        of = predict(shop(days), horizon=120).diagnostics
        margins[days] = of["skill_margin"]
        assert of["skill"] >= -of["skill_margin"]
    assert margins == {300: 0.25, 1200: 0.0}


def test_the_sample_shop_is_forecast_better_than_by_repeating_it():
    days, revenue = sample_shop_revenue()
    answer = forecast(ForecastRequest(pa.table({"ds": days, "y": revenue}), 90, "US"))
    assert answer.diagnostics["beats_naive"] is True
    assert answer.diagnostics["skill"] > 0.05


def sample_shop_revenue():
    from serverless_assets.sample_shop.shop import SampleShop

    orders = SampleShop(end=date(2026, 10, 31)).table("raw_orders")
    ordered = orders["ordered_at"].to_numpy().astype("datetime64[D]")
    days = np.arange(ordered.min(), ordered.max() + 1)
    cents = orders["order_total"].to_numpy().astype(float)
    return days, np.bincount((ordered - days[0]).astype(int), weights=cents) / 100


def test_days_of_the_week_that_were_always_zero_are_forecast_as_zero():
    values = 1000 + np.random.default_rng(0).normal(0, 50, 400)
    values[::7] = 0.0
    answer = predict(values, horizon=70)
    closed = (np.arange(400, 470) % 7) == 0
    assert (columns(answer, ["yhat"])[0][closed] == 0).all()
    assert columns(answer, ["yhat"])[0][~closed].min() > 900
    assert any("Closed on Saturday" in said for said in answer.diagnostics["fallbacks"])


def test_a_holiday_that_was_zero_each_year_is_forecast_as_zero():
    days = series(np.zeros(1100))["ds"].to_pylist()
    values = 1000 + np.random.default_rng(0).normal(0, 50, 1100)
    values[[(day.month, day.day) == (12, 25) for day in days]] = 0.0
    answer = predict(values, horizon=365, country="US")
    yhat = dict(zip(answer.forecast["ds"].to_pylist(), columns(answer, ["yhat"])[0], strict=True))
    assert [day for day, value in yhat.items() if value == 0] == [date(2025, 12, 25)]


def test_a_wild_day_does_not_move_the_forecast():
    values = shop(500) + 200
    wild = values.copy()
    wild[470] *= 1000
    calm, shaken = (columns(predict(of, horizon=60), ["yhat"])[0] for of in (values, wild))
    assert np.abs(shaken - calm).mean() < 0.05 * calm.mean()


def test_after_a_jump_the_new_level_is_forecast():
    noise = np.random.default_rng(0).normal(0, 10, 600)
    answer = predict(noise + np.where(np.arange(600) < 480, 1000.0, 400.0), horizon=60)
    assert columns(answer, ["yhat"])[0].mean() == pytest.approx(400, rel=0.1)


def test_a_shop_that_has_sold_nothing_for_a_quarter_is_forecast_to_sell_nothing():
    answer = predict([*(1000 + shop(300)), *[0.0] * 120], horizon=30)
    assert (columns(answer, ["yhat"]) == 0).all()


def test_zeros_before_the_first_sale_do_not_count():
    late = predict([*[0.0] * 400, *(500 + shop(90))], horizon=30)
    assert (
        columns(late, BOUNDS) == columns(predict(series([*(500 + shop(90))], date(2023, 2, 5)), 30), BOUNDS)
    ).all()


@pytest.mark.slow
def test_bounds_hold_what_comes_about_as_often_as_they_say():
    inside_80, inside_95 = [], []
    for seed in range(12):
        values, horizon = season_and_noise(seed), 120
        answer = predict(values[:-horizon], horizon)
        lower_95, lower_80, _, upper_80, upper_95 = columns(answer, BOUNDS)
        inside_80.append(((lower_80 <= values[-horizon:]) & (values[-horizon:] <= upper_80)).mean())
        inside_95.append(((lower_95 <= values[-horizon:]) & (values[-horizon:] <= upper_95)).mean())
    assert 0.75 < np.mean(inside_80) < 0.9
    assert 0.9 < np.mean(inside_95) < 0.99


def season_and_noise(seed, days=900):
    random, day = np.random.default_rng(seed), np.arange(days)
    noise = np.zeros(days)
    for today in range(1, days):
        noise[today] = 0.5 * noise[today - 1] + random.standard_t(5) * 0.08
    year = random.uniform(0.1, 0.4) * np.sin(2 * np.pi * (day / 365.25 + random.random()))
    level = np.cumsum(random.normal(0, 0.003, days))
    return 1000 * np.exp(year + level + noise) * random.uniform(0.7, 1.3, 7)[day % 7]


def test_short_histories_say_what_is_missing():
    said = " ".join(predict(shop(60), horizon=180).diagnostics["fallbacks"])
    assert "Prophet is left out" in said
    assert "too short to test 180 days ahead" in said


def test_nothing_is_printed(capfd):
    predict(shop(400), country="US")
    assert capfd.readouterr() == ("", "")
