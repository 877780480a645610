import numpy as np
import pytest

from modal_forecast.backtest import Origin, choose_origins, run_backtest
from modal_forecast.calendars import calendar_columns, holidays_of
from modal_forecast.combine import combine, held_out_forecasts, relative_errors, weights
from modal_forecast.intervals import COVERAGES, about_sums, calibrate
from modal_forecast.series import Series

FIRST = np.datetime64("2021-01-01")
HORIZON = 60


def made_of(values):
    series = Series(FIRST + np.arange(len(values)), np.asarray(values, dtype=float))
    days = np.arange(FIRST, series.days[-1] + 1 + HORIZON)
    holidays = holidays_of("US", days)
    return run_backtest(series, HORIZON, calendar_columns(days, holidays), holidays)


def sales(days=800, seed=0):
    day = np.arange(days)
    noise = np.random.default_rng(seed).normal(0, 50, days)
    values = 1000 + 200 * np.sin(2 * np.pi * day / 365) + 100 * (day % 7) + noise
    values[day % 7 == 3] = 0.0
    return values


def test_nothing_after_an_origin_changes_what_was_forecast_at_it():
    values = sales()
    before = made_of(values)
    later = values.copy()
    # An outlier, a jump, a hole, and the end of the closed days: whatever a later day could tell.
    later[before[0].index :] = 9e5
    later[before[0].index + 3] = np.nan
    after = made_of(later)
    assert after[0].index == before[0].index
    for name, forecast in before[0].forecasts.items():
        assert (after[0].forecasts[name] == forecast).all(), name
    assert after[0].scale == before[0].scale


def test_origins_leave_the_horizon_untouched_and_enough_to_learn_from():
    origins, tested = choose_origins(1000, 180)
    assert tested == 180
    assert origins[0] == 820 and len(origins) == 6
    assert origins == sorted(origins, reverse=True) and origins[-1] >= 450


def test_a_history_too_short_for_the_horizon_is_tested_on_fewer_days():
    origins, tested = choose_origins(90, 180)
    assert tested == 30
    assert origins[0] == 60


def test_two_weeks_are_tested_once():
    assert choose_origins(14, 180) == ([7], 7)


def origin(index, actual, **forecasts):
    made = {name: np.full(len(actual), float(value)) for name, value in forecasts.items()}
    return Origin(index, np.asarray(actual, dtype=float), made, 1.0)


def test_better_candidates_weigh_more_and_hopeless_ones_nothing():
    origins = [origin(at, [10.0] * 5, good=11, fair=11.2, bad=50) for at in (100, 90)]
    weight = weights(origins, ["good", "fair", "bad"])
    assert weight["good"] > weight["fair"] > 0
    assert weight["bad"] == 0
    assert sum(weight.values()) == pytest.approx(1)


def test_a_seasonal_naive_takes_part_only_where_it_is_best():
    worse = [origin(at, [10.0] * 5, ours=11, seasonal_naive_7=11.1) for at in (100, 90)]
    better = [origin(at, [10.0] * 5, ours=11.2, seasonal_naive_7=11) for at in (100, 90)]
    assert weights(worse, ["ours", "seasonal_naive_7"])["seasonal_naive_7"] == 0
    assert weights(better, ["ours", "seasonal_naive_7"])["seasonal_naive_7"] > 0.5


def test_a_candidate_tried_at_some_origins_is_judged_by_those():
    origins = [origin(100, [10.0], first=11, second=11), origin(50, [10.0], first=20)]
    assert relative_errors(origins, ["first", "second"]) == {"first": 1.0, "second": 1.0}


def test_the_combination_is_a_median_that_one_stray_does_not_move():
    forecasts = {"a": np.array([1.0]), "b": np.array([1.2]), "stray": np.array([1e9])}
    assert combine(forecasts, {"a": 0.4, "b": 0.4, "stray": 0.2})[0] < 1.5
    assert combine({"alone": np.array([3.0, 4.0])}, {"alone": 1.0}).tolist() == [3.0, 4.0]


def test_no_origin_is_forecast_with_weights_from_its_own_days():
    good_before, good_later = (
        origin(at, [10.0] * 20, early=early, late=late) for at, early, late in ((100, 10, 99), (10, 99, 10))
    )
    made = held_out_forecasts([good_before, good_later], ["early", "late"])
    assert [float(forecast[0]) for forecast in made] == [99.0, 99.0]


def test_bounds_are_as_wide_as_the_errors_were():
    random = np.random.default_rng(0)
    origins = [origin(at, 100 + random.normal(0, 10, 200), ours=100) for at in (900, 700, 500, 300)]
    bounds = calibrate(origins, [of.forecasts["ours"] for of in origins], 200, positive=True).bounds(
        np.full(200, 100.0), np.arange(1.0, 201)
    )
    widths = [
        np.mean(bounds[f"yhat_upper_{c * 100:.0f}"] - bounds[f"yhat_lower_{c * 100:.0f}"]) for c in COVERAGES
    ]
    assert widths[0] == pytest.approx(2 * 12.8, rel=0.15)
    assert widths[1] == pytest.approx(2 * 19.6, rel=0.25)


def test_errors_that_grow_with_the_horizon_and_the_size_widen_the_bounds_likewise():
    random, ahead = np.random.default_rng(0), np.arange(1.0, 201)
    size = np.where(np.arange(200) % 2, 10.0, 1000.0)
    errors = [size * 0.1 * (1 + ahead / 100) * random.normal(size=200) for _ in range(6)]
    origins = [Origin(900 - 200 * n, size + error, {"ours": size}, 1.0) for n, error in enumerate(errors)]
    calibration = calibrate(origins, [size] * 6, 200, positive=True)
    assert calibration.exponent == 1.0
    assert 0.8 < calibration.growth < 3


def sums_of(errors):
    """What is said of the sums of forecasts of 100, 90 to 110, that missed by these errors at each origin."""
    origins = [origin(100 * number, np.full(60, 100.0) + error) for number, error in enumerate(errors)]
    forecasts = [np.full(60, 100.0) for _ in errors]
    bounds = [{"yhat_lower_80": forecast - 10, "yhat_upper_80": forecast + 10} for forecast in forecasts]
    return about_sums(origins, forecasts, bounds)


def test_the_bounds_of_a_sum_are_narrow_where_good_and_bad_days_cancel_out():
    alternating = np.tile([10.0, -10.0], 30)
    by_days = sums_of([alternating, alternating, -alternating])
    # Of 30 days none remains, of 7 days one.
    assert by_days["30"] == {"error": 0.0, "width": 0.0}
    assert by_days["7"]["error"] == pytest.approx(1 / 70, abs=2e-4)
    assert by_days["7"]["width"] == pytest.approx(1 / 7, rel=0.05)


def test_the_bounds_of_a_sum_are_wide_where_days_miss_in_one_direction():
    assert sums_of([np.full(60, -10.0)] * 3)["30"]["width"] == pytest.approx(1.0, abs=0.05)


def test_a_missing_day_is_no_error_and_too_few_sums_tell_nothing():
    missing = np.zeros(60)
    missing[3] = np.nan
    assert sums_of([missing] * 3)["7"] == {"error": 0.0, "width": 0.0}
    # Two origins of 60 days have four sums of 30 days and none of 90; one has two.
    assert sums_of([np.zeros(60)] * 2).keys() == {"7", "30"}
    assert sums_of([np.zeros(60)]).keys() == {"7"}
