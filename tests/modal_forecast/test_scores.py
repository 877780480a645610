"""What a forecast is worth beside a seasonal naive, and how much of one it takes to be no worse."""

import numpy as np
import pytest

from modal_forecast.backtest import Origin, mean_error, mix, naive_share, skill_margin, skill_of
from modal_forecast.combine import held_out_forecasts, without_days_of

DAYS = 30
PROVEN, UNPROVEN = (400, 370, 340), (400, 390)


def origins(indices, naive):
    """Every day was 100, and last week's days were off by `naive`."""
    return [Origin(at, np.full(DAYS, 100.0), {"seasonal_naive_7": 100.0 + naive}, 10.0) for at in indices]


def made(indices, off):
    return [100.0 + off for _ in indices]


UP, DOWN = np.full(DAYS, 10.0), np.full(DAYS, -10.0)
EVERY_OTHER = np.where(np.arange(DAYS) % 2 == 0, 10.0, -10.0)


@pytest.mark.parametrize(
    ("naive", "ours", "share"),
    [
        # Level with it is not worse.
        (UP, UP, 0.0),
        # Off in the other direction: the naive makes up for it.
        (UP, 1.5 * DOWN, 0.25),
        (UP, 2.5 * DOWN, 0.5),
        # Off in the same direction: nothing but the naive is as good.
        (UP, 1.5 * UP, 1.0),
        (0 * UP, UP, 1.0),
    ],
)
def test_as_much_of_the_naive_is_mixed_in_as_makes_the_forecast_no_worse_than_it(naive, ours, share):
    tested = origins(PROVEN, naive)
    assert naive_share(tested, made(PROVEN, ours)) == ("seasonal_naive_7", share)
    mixed = [
        mix(forecast, origin.baseline("seasonal_naive_7"), share)
        for forecast, origin in zip(made(PROVEN, ours), tested, strict=True)
    ]
    assert skill_of(tested, mixed)["skill"] >= 0


@pytest.mark.parametrize(("worse", "share"), [(1.2, 0.0), (1.3, 0.25), (2.1, 1.0)])
def test_where_days_tested_are_few_a_naive_that_erred_a_little_less_takes_no_part(worse, share):
    assert naive_share(origins(UNPROVEN, UP), made(UNPROVEN, worse * UP))[1] == share
    assert naive_share(origins(PROVEN, UP), made(PROVEN, worse * UP))[1] == 1.0


def test_what_so_few_days_cannot_prove_is_said():
    of = skill_of(origins(UNPROVEN, UP), made(UNPROVEN, 1.2 * UP))
    assert (of["skill"], of["skill_margin"], of["beats_naive"]) == (-0.2, 0.25, False)
    assert of["why"].endswith("it was smaller in 0 of 2. The history is too short to prove that.")
    assert "too short" not in skill_of(origins(PROVEN, UP), made(PROVEN, 1.2 * UP))["why"]
    assert "too short" not in skill_of(origins(UNPROVEN, UP), made(UNPROVEN, 0.8 * UP))["why"]


def test_without_a_back_test_nothing_is_mixed_in():
    assert naive_share([], [])[1] == 0.0
    assert skill_margin([]) == 0.0


def test_errors_count_in_those_of_last_weeks_same_day():
    assert mean_error(origins(PROVEN, UP), made(PROVEN, EVERY_OTHER)) == pytest.approx(1.0)


def judged(indices, days):
    """At the later origins one candidate is right and the other wrong; at the first it is the other way."""
    right, wrong = np.full(days, 100.0), np.full(days, 200.0)
    swapped = {"good": wrong, "bad": right, "seasonal_naive_7": right}
    usual = {"good": right, "bad": wrong, "seasonal_naive_7": right}
    return [Origin(at, np.full(days, 100.0), swapped if at == indices[0] else usual, 10.0) for at in indices]


@pytest.mark.parametrize("days", [3, 30])
def test_a_choice_is_judged_by_days_that_it_was_not_made_from(days):
    # Half of the days of the second origin are those of the first; the third shares none.
    tested = judged((400, 400 - days // 2, 400 - 2 * days), days)
    first, *_ = held_out_forecasts(tested, ["good", "bad"])
    assert first == pytest.approx(np.full(days, 200.0))


def test_where_every_day_is_shared_all_weigh_the_same():
    first, _ = held_out_forecasts(judged((400, 399), 5), ["good", "bad"])
    assert first == pytest.approx(np.full(5, 150.0))


@pytest.mark.parametrize(("index", "left"), [(400, ""), (403, "789"), (396, "0123"), (410, "0123456789")])
def test_of_another_origin_the_days_that_are_shared_are_left_out(index, left):
    origin, other = (Origin(at, np.arange(10.0), {}, 1.0) for at in (400, index))
    found = without_days_of(origin, other).actual
    assert [int(day) for day in found[~np.isnan(found)]] == [int(day) for day in left]
