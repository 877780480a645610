"""What to expect: totals, their bounds, and last year."""

from datetime import date, timedelta

import pytest

from modal_forecast.grain import MONTH, WEEK
from modal_forecast.report.formats import Amounts
from modal_forecast.report.sections.outlook import (
    BOUNDED,
    BOUNDS,
    LAST_YEAR,
    WIDEST,
    measured_widths,
    outlook,
    sum_width,
    window_totals,
)
from modal_forecast.report.sections.periods import by_period
from modal_forecast.report.values import PeriodValues

TOMORROW = date(2025, 9, 1)
DOLLARS = Amounts("USD", 0, 2)


def before(values: list[float | None]) -> PeriodValues:
    """Values up to the day before TOMORROW."""
    return PeriodValues(TOMORROW - timedelta(days=len(values)), tuple(values))


def ahead(values: list[float | None]) -> dict[str, PeriodValues]:
    """From TOMORROW on, give or take a tenth."""
    factors = {"yhat": 1.0, "yhat_lower_80": 0.9, "yhat_upper_80": 1.1}
    return {
        name: PeriodValues(TOMORROW, tuple(None if value is None else value * factor for value in values))
        for name, factor in factors.items()
    }


def test_a_window_is_compared_with_the_same_weekdays_52_weeks_earlier():
    past = PeriodValues(TOMORROW - timedelta(days=365), (9_999.0, *[100.0] * 7, *[1.0] * 357))
    (week,) = window_totals(past, ahead([110.0] * 7), {})
    assert (week.total, week.last_year, week.last) == (770, 700, date(2025, 9, 7))
    assert week.change == pytest.approx(0.1)


def test_one_unknown_day_last_year_leaves_nothing_to_compare_with_and_says_how_much_is_known():
    past = before([100.0, None, *[100.0] * 362])
    windows = window_totals(past, ahead([110.0] * 7), {})
    assert windows[0].last_year is None and windows[0].change is None
    assert "last year known on 6 of 7 days" in outlook(past, windows, DOLLARS).cards[0].beside


def test_a_history_of_less_than_a_year_has_no_last_year():
    past = before([100.0] * 50)
    view = outlook(past, window_totals(past, ahead([110.0] * 7), {}), DOLLARS)
    assert view.cards[0].beside[-1] == "no last year to compare with"
    assert view.answer == "Expect about $770 in the next 7 days, at the widest between $693 and $847."
    assert LAST_YEAR not in view.notes


def test_there_is_no_percentage_of_nothing():
    past = before([0.0] * 364)
    windows = window_totals(past, ahead([1.0] * 7), {})
    assert windows[0].last_year == 0 and windows[0].change is None
    assert outlook(past, windows, DOLLARS).cards[0].beside[-1] == "last year $0"


@pytest.mark.parametrize(
    ("horizon", "windows"), [(1, [1]), (6, [6]), (7, [7]), (89, [7, 30]), (180, [7, 30, 90])]
)
def test_only_windows_that_the_forecast_fills_are_totalled(horizon, windows):
    totals = window_totals(before([1.0]), ahead([1.0] * horizon), {})
    assert [(total.count, total.total) for total in totals] == [(days, days) for days in windows]


def test_bounds_of_several_days_add_up_those_of_each_and_are_said_to_be_too_wide():
    past = before([1.0])
    view = outlook(past, window_totals(past, ahead([100.0] * 30), {}), DOLLARS)
    assert [card.beside[0] for card in view.cards[:2]] == [
        "at the widest between $630 and $770",
        "at the widest between $2,700 and $3,300",
    ]
    assert WIDEST.format("day", "days") in view.notes and BOUNDS not in view.notes


def test_a_forecast_with_an_unknown_day_has_no_total():
    past = before([1.0])
    windows = window_totals(past, ahead([100.0, None, *[100.0] * 5]), {})
    assert windows[0].total is None
    assert outlook(past, windows, DOLLARS).answer == "Expect about n/a in the next 7 days."


def test_the_opening_sentence_is_about_a_month_and_says_more_or_less():
    past = before([100.0] * 364)
    view = outlook(past, window_totals(past, ahead([75.0] * 100), {}), DOLLARS)
    assert view.answer == (
        "Expect about $2,250 in the next 30 days, at the widest between $2,025 and $2,475. "
        "That is 25% less than on the same days of last year."
    )


def test_a_change_too_small_to_matter_is_none():
    past = before([100.0] * 364)
    view = outlook(past, window_totals(past, ahead([100.1] * 30), {}), DOLLARS)
    assert view.answer.endswith("That is about as much as on the same days of last year.")


def test_the_bounds_of_one_day_are_those_of_its_sum():
    past = before([1.0])
    view = outlook(past, window_totals(past, ahead([100.0]), {}), DOLLARS)
    assert view.answer == "Expect about $100 in the next day, between $90 and $110."
    assert BOUNDS in view.notes and not any("widest" in note for note in view.notes)


def test_the_last_actual_day_is_the_last_one_that_has_a_value():
    past = before([1.0, 2.0, None])
    last = outlook(past, window_totals(past, ahead([1.0]), {}), DOLLARS).cards[-1]
    assert (last.label, last.value, last.detail) == ("Last actual day", "$2", "Sat 30 Aug 2025")


@pytest.mark.parametrize(
    ("unit", "value", "text", "signed"),
    [
        ("USD", 88_343.4, "$88,343", "+$88,343"),
        ("$", -310.0, "-$310", "-$310"),
        ("EUR", 0.0, "€0", "€0"),
        ("cups", 1_200.0, "1,200 cups", "+1,200 cups"),
        ("", 12.0, "12", "+12"),
        ("USD", 2_500_000_000.0, "$2,500 million", "+$2,500 million"),
        ("USD", None, "n/a", "n/a"),
    ],
)
def test_money_is_written_as_people_write_it_and_any_other_unit_after_the_number(unit, value, text, signed):
    amounts = Amounts(unit, 0, 2)
    assert (amounts(value), amounts.signed(value)) == (text, signed)


def test_sentences_drop_the_cents_where_values_are_in_the_thousands():
    assert Amounts.of("USD", 2, 4_500.0)(75.94) == "$76"
    assert Amounts.of("USD", 2, 45.0)(12.5) == "$12.50"


def test_amounts_that_are_read_together_have_one_precision():
    amounts = Amounts.of("kg", 2, 45.0)
    assert [amounts.of_one_precision([95.57, 109.0, None])(value) for value in (95.57, 109.0)] == [
        "96 kg",
        "109 kg",
    ]
    assert amounts.of_one_precision([12.5, 45.0])(12.5) == "12.50 kg"


def test_the_bounds_of_a_sum_are_as_wide_as_the_back_test_saw_sums_miss():
    widths = measured_widths({"backtest": {"sums": {"7": {"width": 0.6}, "30": {"width": 0.4}}}})
    past = before([1.0])
    windows = window_totals(past, ahead([100.0] * 90), widths)
    assert [window.lower for window in windows] == pytest.approx([658, 2_880, 8_640])
    assert [window.upper for window in windows] == pytest.approx([742, 3_120, 9_360])
    view = outlook(past, windows, DOLLARS)
    assert view.answer == "Expect about $3,000 in the next 30 days, between $2,880 and $3,120."
    assert BOUNDS in view.notes and not any("widest" in note for note in view.notes)


def test_between_two_measured_numbers_of_days_the_width_changes_evenly():
    assert sum_width(1, {7: 0.6}) == 1
    assert sum_width(4, {7: 0.6}) == pytest.approx(0.8)
    assert sum_width(14, {7: 0.6, 21: 0.4}) == pytest.approx(0.5)
    assert sum_width(365, {7: 0.6, 30: 0.4}) == 0.4
    assert sum_width(30, {}) is None


def test_a_month_that_has_begun_counts_what_came_and_one_cut_off_is_left_out():
    # TOMORROW is Monday 1 September: the forecast begins on the third day of the week and the month.
    start = TOMORROW + timedelta(days=2)
    past = PeriodValues(date(2024, 8, 1), (50.0,) * (start - date(2024, 8, 1)).days)
    coming = {
        name: PeriodValues(start, (value,) * 62)
        for name, value in (("yhat", 100.0), ("yhat_lower_80", 90.0), ("yhat_upper_80", 110.0))
    }
    weeks, months = by_period(past, coming, {30: 0.5}, DOLLARS)
    # Two days of 50 and 28 of 100, whose bounds are a little more than half as wide as the added ones.
    assert months.rows[0] == ("September 2025, 2 of 30 days past", "$2,900", "$2,750 to $3,050", "+93.3%")
    assert [row[0] for row in months.rows[1:]] == ["October 2025"]
    assert weeks.rows[0][0] == "1 to 7 Sep 2025, 2 of 7 days past"
    assert weeks.rows[0][1] == "$600"
    assert len(weeks.rows) == 8


def test_a_forecast_of_a_few_days_has_no_weeks_or_months():
    assert by_period(before([1.0]), ahead([1.0] * 3), {}, DOLLARS) == ()


def test_a_week_across_new_year_names_both_years():
    coming = {name: PeriodValues(date(2025, 12, 29), (7.0, 7.0), WEEK) for name in BOUNDED}
    [weeks] = by_period(PeriodValues(date(2025, 12, 22), (7.0,), WEEK), coming, {}, DOLLARS)
    assert [row[0] for row in weeks.rows] == ["29 Dec 2025 to 4 Jan 2026", "5 to 11 Jan 2026"]


def test_months_are_summed_over_quarters_halves_and_years_and_compared_with_last_years():
    past = PeriodValues(date(2024, 9, 1), (100.0,) * 12, MONTH)
    coming = {
        name: PeriodValues(TOMORROW, (value,) * 12, MONTH)
        for name, value in {"yhat": 110.0, "yhat_lower_80": 99.0, "yhat_upper_80": 121.0}.items()
    }
    view = outlook(past, window_totals(past, coming, {3: 0.5, 6: 0.4, 12: 0.3}), DOLLARS)
    assert [(card.label, card.detail, card.value) for card in view.cards] == [
        ("Next 3 months", "to November 2025", "$330"),
        ("Next 6 months", "to February 2026", "$660"),
        ("Next 12 months", "to August 2026", "$1,320"),
        ("Last actual month", "August 2025", "$100"),
    ]
    assert (
        "in the next 6 months" in view.answer
        and "10% more than in the same months of last year" in view.answer
    )
    assert view.notes == (BOUNDS,)
    (months,) = by_period(past, coming, {}, DOLLARS)
    assert months.rows[0] == ("September 2025", "$110", "$99 to $121", "+10.0%") and len(months.rows) == 12


def test_periods_after_old_data_are_not_called_the_next_ones():
    past = before([100.0] * 50)
    windows = window_totals(past, ahead([100.0] * 30), {})
    fresh, old = (outlook(past, windows, DOLLARS, TOMORROW + timedelta(days=days)) for days in (6, 7))
    assert fresh.warning == "" and fresh.cards[0].label == "Next 7 days"
    assert old.warning == (
        "The data ends on Sun 31 Aug 2025, 8 days before this forecast was made: load newer data."
    )
    assert old.answer.startswith("The forecast is about $3,000 in the 30 days from Mon 1 Sep 2025, ")
    assert [card.label for card in old.cards[:2]] == [
        f"{count} days from Mon 1 Sep 2025" for count in (7, 30)
    ]


def test_a_unit_behind_numbers_is_said_once_between_two():
    assert Amounts("guests", 0, 2).range(433, 439) == "433 and 439 guests"
    assert DOLLARS.range(433, 439) == "$433 and $439"
    assert Amounts("", 0, 2).range(433, 439) == "433 and 439"
