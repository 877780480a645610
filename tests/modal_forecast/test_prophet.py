import numpy as np
import pytest

from modal_forecast.candidates import prophet
from modal_forecast.candidates.prophet import fits_prophet, forecast_prophet
from modal_forecast.candidates.protocol import CandidateFailed
from modal_forecast.series import Series

HORIZON = 90


def seasonal(days=800, level=1000.0, seed=0):
    day = np.datetime64("2021-01-01") + np.arange(days)
    noise = np.random.default_rng(seed).normal(0, 30, days)
    year = 100 * np.sin(2 * np.pi * np.arange(days) / 365.25)
    return Series(day, level + year + 50.0 * (np.arange(days) % 7) + noise)


def test_missing_days_are_left_out():
    whole = seasonal()
    holey = whole.values.copy()
    holey[100:110] = np.nan
    made = forecast_prophet(Series(whole.days, holey), HORIZON, {})
    assert made == pytest.approx(forecast_prophet(whole, HORIZON, {}), rel=0.05)


def test_a_year_of_values_is_needed_and_some_noise():
    assert not fits_prophet(seasonal(days=364))
    assert fits_prophet(seasonal(days=365))
    assert not fits_prophet(Series(seasonal().days, np.full(800, 5.0)))


@pytest.mark.parametrize("level", [1000.0, -500.0], ids=["factors", "differences"])
def test_the_year_and_the_week_go_on(level):
    ahead = forecast_prophet(seasonal(level=level), HORIZON, {})
    assert ahead == pytest.approx(seasonal(800 + HORIZON, level).values[-HORIZON:], abs=120)


def test_a_fit_without_end_is_given_up_in_a_way_that_is_expected(monkeypatch):
    monkeypatch.setattr(prophet, "TIMEOUT_SECONDS", 1e-4)
    with pytest.raises(CandidateFailed):
        forecast_prophet(seasonal(days=400), 10, {})
