from datetime import date, timedelta

import pyarrow as pa
import pytest

from modal_forecast.messages import HISTORY_SCHEMA, ForecastRefused, ForecastRequest
from modal_forecast.validation import check

DAY = date(2024, 1, 1)
FORTNIGHT = [float(n) for n in range(14)]


def request(values=FORTNIGHT, days=None, horizon=180, country="US"):
    days = days or [DAY + timedelta(days=n) for n in range(len(values))]
    return ForecastRequest(pa.table({"ds": days, "y": values}, schema=HISTORY_SCHEMA), horizon, country)


@pytest.mark.parametrize(
    "good",
    [
        request(),
        request(horizon=1),
        request(horizon=730),
        request(country="DE"),
        request(country=None),
        request([None, *FORTNIGHT, None]),
        request([-value for value in FORTNIGHT]),
    ],
)
def test_a_sensible_request_passes(good):
    check(good)


@pytest.mark.parametrize("values", [[], [None] * 30, FORTNIGHT[:13], [*FORTNIGHT[:13], None, float("nan")]])
def test_less_than_two_weeks_of_values_are_too_few(values):
    with pytest.raises(
        ForecastRefused, match=r"has \d+ days with a value, and a forecast needs 14 or more: load"
    ):
        check(request(values))


@pytest.mark.parametrize("horizon", [0, -1, 731, 1.0, 7.5, True, "30", None])
def test_a_horizon_that_is_no_whole_number_from_1_to_730_is_refused(horizon):
    with pytest.raises(ForecastRefused, match="choose a whole number of days from 1 to 730"):
        check(request(horizon=horizon))


@pytest.mark.parametrize("country", ["XX", "us", "USA", "", "HolidayBase", "NYSE", 7, ["US"]])
def test_an_unknown_country_is_refused_with_the_known_ones(country):
    with pytest.raises(ForecastRefused, match=r"Known are AD, AE, .*, DE, .*, US, "):
        check(request(country=country))


def test_a_repeated_day_is_refused_by_name():
    days = [DAY + timedelta(days=n) for n in range(14)]
    with pytest.raises(ForecastRefused, match=r"2024-01-14 more than once \(1 rows too many\)"):
        check(request([*FORTNIGHT, 1.0], [*days, days[-1]]))


def test_a_row_without_a_day_is_refused():
    days = [DAY + timedelta(days=n) for n in range(14)]
    with pytest.raises(ForecastRefused, match="1 of 15 rows of the history have no ds"):
        check(request([*FORTNIGHT, 1.0], [*days, None]))


@pytest.mark.parametrize("day", [date(1899, 12, 31), date(2200, 1, 2), date(9999, 1, 1)])
def test_a_day_outside_what_the_model_can_reckon_with_is_refused(day):
    days = [DAY + timedelta(days=n) for n in range(14)]
    with pytest.raises(ForecastRefused, match=f"has the day {day}: days must lie between"):
        check(request([*FORTNIGHT, 1.0], [*days, day]))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e101])
def test_an_infinite_or_astronomic_value_is_refused_with_its_day(value):
    with pytest.raises(
        ForecastRefused, match=r"On 2024-01-15 the history has the value .*: values must be finite"
    ):
        check(request([*FORTNIGHT, value]))
