import logging
from importlib.metadata import version

import numpy as np
import pytest

from modal_forecast.calendars import holidays_of
from modal_forecast.candidates import CandidateFailed, prophet
from modal_forecast.candidates.prophet import fits_prophet, forecast_prophet
from modal_forecast.series import Series

HORIZON = 90


def seasonal(days=800, level=1000.0, seed=0):
    day = np.datetime64("2021-01-01") + np.arange(days)
    noise = np.random.default_rng(seed).normal(0, 30, days)
    year = 100 * np.sin(2 * np.pi * np.arange(days) / 365.25)
    return Series(day, level + year + 50.0 * (np.arange(days) % 7) + noise)


def test_an_upgrade_of_prophet_needs_a_look_at_its_stan_program():
    # candidates/prophet.py uses the program in the wheel, which is no public API.
    assert version("prophet").startswith("1.5."), "Check candidates/prophet.py against this version."


@pytest.mark.parametrize(
    "series",
    [
        pytest.param(seasonal(), id="factors"),
        pytest.param(seasonal(level=-500.0), id="differences"),
        pytest.param(seasonal(days=500), id="no year"),
    ],
)
def test_it_is_what_prophet_itself_forecasts(series):
    ahead = np.arange(series.days[0], series.days[-1] + 1 + HORIZON)
    holidays = holidays_of("US", ahead)
    theirs = package(series, holidays, ahead[-HORIZON:])
    # Both stop once Stan finds nothing better nearby, not quite at the same place.
    tolerance = 0.002 * np.abs(series.values).max()
    assert forecast_prophet(series, HORIZON, holidays) == pytest.approx(theirs, abs=tolerance)


def package(series, holidays, days):
    import pandas as pd
    from prophet import Prophet

    logging.getLogger("cmdstanpy").disabled = True
    model = Prophet(
        holidays=pd.DataFrame(
            [{"holiday": name, "ds": pd.Timestamp(day)} for name, when in holidays.items() for day in when]
        ),
        seasonality_mode="additive" if series.is_signed() else "multiplicative",
        changepoint_prior_scale=prophet.CHANGEPOINT_PRIOR_SCALE,
        uncertainty_samples=0,
    )
    model.fit(pd.DataFrame({"ds": series.days.astype("datetime64[ns]"), "y": series.values}))
    return model.predict(pd.DataFrame({"ds": days.astype("datetime64[ns]")}))["yhat"].to_numpy()


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


def test_stan_leaves_no_files_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    forecast_prophet(seasonal(days=400), 10, {})
    assert list(tmp_path.iterdir()) == []


def test_without_stan_it_fails_in_a_way_that_is_expected(monkeypatch, tmp_path):
    monkeypatch.setattr(prophet, "stan_program", lambda: tmp_path / "absent")
    with pytest.raises(CandidateFailed):
        forecast_prophet(seasonal(days=400), 10, {})
