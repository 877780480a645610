"""What each section of the report answers, from data to sentences, without a page."""

import math
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pytest

from modal_forecast.calendars import MONTHS, WEEKDAYS
from modal_forecast.report.formats import Amounts
from modal_forecast.report.page import headline, render
from modal_forecast.report.sections.accuracy import (
    accuracy,
    bias_text,
    compare,
    judge_coverage,
)
from modal_forecast.report.sections.data_quality import data_quality
from modal_forecast.report.sections.more import more_sections
from modal_forecast.report.sections.outlook import window_total
from modal_forecast.report.sections.parts import by_part
from modal_forecast.report.sections.reasons import reasons, trend_text
from modal_forecast.report.sections.track_record import NO_TRACK_RECORD, track_record
from modal_forecast.report.values import PeriodValues, read_values
from tests.modal_forecast.test_report import LAST_ACTUAL, forecast, history, report

DOLLARS = Amounts("USD", 0, 2)
TOMORROW = LAST_ACTUAL + timedelta(days=1)
DIAGNOSTICS: dict[str, Any] = {
    "backtest": {
        "origins": 6,
        "horizon": 28,
        "mase": 0.6,
        "wape": 0.086,
        "bias": 0.02,
        "coverage_80": 0.79,
        "coverage_95": 0.94,
    },
    "candidates": {
        "seasonal_naive_364": {"mase": 2.0, "wape": 0.12, "weight": 0.0},
        "prophet": {"mase": 0.9, "weight": 0.2},
        "a_new_one": {"mase": 0.7, "weight": 0.8},
    },
    "best_naive": "seasonal_naive_364",
    "skill": 0.28,
    "beats_naive": True,
}

# How sure


def test_skill_is_said_in_words():
    view = accuracy(DIAGNOSTICS, DOLLARS)
    assert view is not None and view.warning == ""
    assert view.answer.startswith(
        "It is off by 8.6% on a typical day. It errs 28% less than repeating last year's same days. To find"
    )
    assert [(card.label, card.value) for card in view.cards] == [
        ("Days inside the 80% bounds", "79%"),
        ("Days inside the 95% bounds", "94%"),
        ("Typical error of a day", "8.6%"),
        ("Error of a naive forecast", "12%"),
    ]


def test_a_forecast_that_does_not_beat_naive_is_warned_of():
    view = accuracy(DIAGNOSTICS | {"skill": -0.12, "beats_naive": False}, DOLLARS)
    assert view is not None
    assert view.warning == (
        "In the back-test this forecast did not beat repeating last year's same days. It errs 12% more than "
        "repeating last year's same days. Do not rely on it alone."
    )


def test_a_skill_too_small_to_matter_is_none():
    view = accuracy(DIAGNOSTICS | {"skill": 0.001}, DOLLARS)
    assert view is not None and "typical day. It errs about as much as repeating last year's" in view.answer


def test_the_error_over_a_month_is_said_if_the_back_test_tells_it():
    sums = {"sums": {"30": {"error": 0.052, "width": 0.6}}}
    view = accuracy(DIAGNOSTICS | {"backtest": DIAGNOSTICS["backtest"] | sums}, DOLLARS)
    assert view is not None
    assert view.answer.startswith("It is off by 8.6% on a typical day, and by 5.2% over 30 days.")


def test_a_large_bias_is_said_before_anything_else_and_beside_the_headline():
    diagnostics = DIAGNOSTICS | {"backtest": DIAGNOSTICS["backtest"] | {"bias": -0.11}}
    view = accuracy(diagnostics, DOLLARS)
    assert view is not None
    sentence = "Over all 6 back-tests, the forecast was 11% too low on the whole."
    assert view.answer.startswith(f"{sentence} It is off by 8.6%")
    assert sentence in headline(report(diagnostics=diagnostics))
    assert render(report(diagnostics=diagnostics)).count(sentence) == 2
    assert view.cards[0].beside == (
        "about as many as promised, though the forecast was too low on the whole",
    )


def test_a_score_that_is_not_known_has_no_card():
    scores = {"origins": 1, "horizon": 7, "coverage_80": 0.8, "wape": None}
    view = accuracy(DIAGNOSTICS | {"backtest": scores, "candidates": {}}, DOLLARS)
    assert view is not None and [card.label for card in view.cards] == ["Days inside the 80% bounds"]
    assert view.models.rows == (("All together", "100%", "n/a"),)


def test_without_a_back_test_nothing_is_known_of_the_accuracy():
    assert accuracy({}, DOLLARS) is None
    assert accuracy(DIAGNOSTICS | {"backtest": {"origins": 0}}, DOLLARS) is None


@pytest.mark.parametrize(
    ("inside", "words"),
    [(0.80, "about as many"), (0.74, "about as"), (0.6, "fewer"), (0.95, "more than promised")],
)
def test_the_share_of_days_inside_is_judged_by_what_was_promised(inside, words):
    assert judge_coverage(inside, 0.8).startswith(words)


def test_ten_of_a_hundred_days_outside_are_twice_too_many_where_five_were_promised():
    assert judge_coverage(0.90, 0.95).startswith("fewer than promised")
    assert judge_coverage(0.94, 0.95).startswith("about as many")


def test_a_bias_above_zero_means_too_high():
    assert bias_text(0.02) == "2.0% too high on the whole"
    assert bias_text(-0.123) == "12% too low on the whole"
    assert bias_text(0.001) == "about right on the whole"


def test_methods_are_listed_by_their_share():
    view = accuracy(DIAGNOSTICS, DOLLARS)
    assert view is not None
    assert view.models.rows == (
        ("All together", "100%", "0.30"),
        ("A new one", "80%", "0.35"),
        ("Prophet", "20%", "0.45"),
        ("Repeating last year", "0%", "1.00"),
    )
    assert view.models.headings[2] == "Error (1 = repeating last year's same days)"


# Forecast against what came


def test_only_days_that_have_come_are_counted():
    days = [date(2026, 1, day) for day in (1, 2, 3)]
    actual: list[float | None] = [100.0, 130.0, None]
    forecast = [[110.0, 100.0, 90.0], [95.0, 90.0, 80.0], [120.0, 110.0, 100.0]]
    view = compare(days, [actual, *forecast], "Title", "Caption", DOLLARS)
    assert view.summary == "Over 2 days, $230 came and $210 was forecast; 1 of 2 fell inside the 80% bounds."
    assert view.table.rows[2] == ("Sat 3 Jan 2026", "n/a", "90.00", "80.00", "100.00")
    with pytest.raises(ValueError):
        compare(days, [[1.0], *forecast], "Title", "Caption", DOLLARS)


def test_before_any_day_has_come_there_is_nothing_to_compare():
    for record in ({}, {"vintages": []}, {"vintages": [{"made_on": "2026-11-24", "periods": 0}]}):
        view = track_record(record, DOLLARS)
        assert view is not None and (view.answer, view.table) == (NO_TRACK_RECORD.format("day"), None)
    assert track_record(None, DOLLARS) is None


def test_earlier_forecasts_count_by_their_days_and_come_newest_first():
    scores = {"bias": 0.0, "coverage_95": 0.9}
    vintages = [
        {"made_on": "2026-09-01", "periods": 30, "wape": 0.1, "coverage_80": 0.8, **scores},
        {"made_on": "2026-10-01", "periods": 10, "wape": 0.5, "coverage_80": 0.4, **scores},
        {"made_on": "2026-11-01", "periods": 5, "wape": math.nan, "coverage_80": None, **scores},
    ]
    view = track_record({"vintages": vintages}, DOLLARS)
    assert view is not None and view.table is not None
    assert "scored on 45 days in all: a day was off by 20%, and 70% fell" in view.answer
    assert [row[:3] for row in view.table.rows] == [
        ("Sun 1 Nov 2026", "5", "n/a"),
        ("Thu 1 Oct 2026", "10", "50%"),
        ("Tue 1 Sep 2026", "30", "10%"),
    ]


def test_stores_that_were_forecast_worst_are_listed_in_the_order_that_they_come_in():
    scores = {"periods": 40, "mase": 1.318, "wape": 0.5, "bias": 0.2, "coverage_80": 0.4, "coverage_95": 0.6}
    worst = [{"name": "Bad", **scores}, {"name": "Unknown", **scores, "mase": None, "bias": None}]
    vintages = [{"made_on": "2026-11-01", "periods": 5, "wape": 0.1}]
    for scored, caption in (
        (2, "Each store: the worst first"),
        (9_000, "Each store: the 2 worst of 9,000 stores"),
    ):
        record = {"vintages": vintages, "parts": {"scored": scored, "worst": worst}}
        view = track_record(record, DOLLARS, "store")
        assert view is not None and view.worst_parts is not None
        assert view.worst_parts.caption == caption
        assert view.worst_parts.rows == (
            ("Bad", "1.32", "50%", "20% too high", "40%", "60%"),
            ("Unknown", "n/a", "50%", "n/a", "40%", "60%"),
        )
    assert track_record({"vintages": vintages}, DOLLARS).worst_parts is None


def test_many_vintages_are_cut_and_said_to_be():
    vintages = [{"made_on": f"2026-01-{day:02}", "periods": 1, "wape": 0.1} for day in range(1, 21)]
    view = track_record({"vintages": vintages}, DOLLARS)
    assert view is not None and view.table is not None
    assert (len(view.table.rows), view.earlier) == (12, "8 older forecasts not shown.")


# Why


def months(values: list[float], last: date = date(2026, 11, 1)) -> list[tuple[date, float]]:
    ends = last.year * 12 + last.month - 1
    return [(date((ends - i) // 12, (ends - i) % 12 + 1, 1), v) for i, v in enumerate(values[::-1])][::-1]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            [float(100 * month) for month in range(1, 26)],
            "Rising by about $100 a month. A usual day now brings $2,500, 92% more than a year ago.",
        ),
        (
            [1_300.0, 1_200.0],
            "Falling by about $100 a month. A usual day now brings $1,200, 7.7% less than in",
        ),
        ([1_000.0] * 12 + [1_010.0], "Flat: a usual day now brings $1,010, about as much as a year ago."),
        ([-100.0, 100.0], "Rising by about $200 a month. A usual day now brings $100."),
    ],
)
def test_the_direction_of_the_trend_is_said_in_words(values, words):
    assert trend_text(months(values), date(2026, 11, 25), DOLLARS).startswith(words)


def test_a_trend_that_goes_on_into_the_forecast_is_judged_by_its_past():
    text = trend_text(months([1_000.0, 2_000.0, 9_000.0]), date(2026, 10, 15), DOLLARS)
    assert "now brings $2,000" in text


# Of a count, which has no decimals itself.
GUESTS = Amounts("guests", 0, 0)
NO_COMPONENTS: dict[str, Any] = {
    "scale": "difference",
    "trend": [],
    "weekly": [[day, 0.0] for day in WEEKDAYS],
    "yearly": [],
    "holidays": [],
}
AHEAD = PeriodValues(date(2026, 11, 25), (1.0,) * 37)


def labelled(effects: list[float | None], labels: tuple[str, ...]) -> list[list[Any]]:
    return [[label, effect] for label, effect in zip(labels, effects, strict=True)]


def reasons_of(**components: Any) -> list[tuple[str, str]]:
    every = reasons(NO_COMPONENTS | components, AHEAD, "US", DOLLARS)
    return [(reason.title, reason.answer) for reason in every]


def test_the_best_and_the_weakest_day_of_the_week_are_named():
    assert reasons_of(weekly=labelled([-120.0, 0.0, 0.0, 0.0, 0.0, 310.0, 0.0], WEEKDAYS)) == [
        ("Week", "Saturday is the best day (+$310 against the average), Monday the weakest (-$120).")
    ]


def test_what_chance_explains_is_not_called_best_or_weakest_and_is_drawn_pale():
    effects = labelled([-0.268, 0.0, 0.0, 0.0, 0.0, 0.196, 0.07], WEEKDAYS)
    nothing = {"weekly": [], "yearly": []}
    (week,) = reasons(NO_COMPONENTS | {"weekly": effects, "stands_out": nothing}, AHEAD, "US", GUESTS)
    assert (week.answer, week.plot, week.table) == ("No weekday stands out.", None, None)
    (week,) = reasons(
        NO_COMPONENTS | {"weekly": effects, "stands_out": {"weekly": ["Monday"], "yearly": []}},
        AHEAD, "US", GUESTS,
    )  # fmt: skip
    assert week.answer.startswith("Monday is the weakest day (-0.27 guests against the average). Pale:")
    assert [bar.is_faint for bar in week.plot.bars] == [False, *[True] * 6]
    yearly = labelled([*[0.0] * 11, 5.0], MONTHS)
    for months, answer in (
        ([], "No time of the year stands out."),
        (None, "Not known yet: less than two years"),
    ):
        ((_, said),) = reasons_of(yearly=yearly, stands_out={"weekly": [], "yearly": months})
        assert said.startswith(answer)


def test_small_effects_have_the_same_decimals_in_sentence_bars_and_table():
    effects = labelled([-0.268, 0.0, 0.0, 0.0, 0.0, 0.196, 0.07], WEEKDAYS)
    (week,) = reasons(NO_COMPONENTS | {"weekly": effects}, AHEAD, "US", GUESTS)
    assert "(+0.20 guests against" in week.answer and "(-0.27 guests)" in week.answer
    assert [bar.text for bar in week.plot.bars] == ["-0.27", *["0.00"] * 4, "+0.20", "+0.07"]
    assert [row[1].removesuffix(" guests") for row in week.table.rows] == [bar.text for bar in week.plot.bars]


def test_only_holidays_whose_effect_chance_does_not_explain_are_shown():
    holidays = [
        {"holiday": "Christmas Day", "day": -10.0, "supported": False},
        {"holiday": "Thanksgiving Day", "day": -5.0, "supported": True},
    ]
    (holiday,) = reasons(NO_COMPONENTS | {"holidays": holidays}, AHEAD, "US", DOLLARS)
    assert [row[0] for row in holiday.table.rows] == ["Thanksgiving Day"]
    (holiday,) = reasons(NO_COMPONENTS | {"holidays": holidays[:1]}, AHEAD, "US", DOLLARS)
    assert (holiday.answer, holiday.table) == ("No holiday ahead stands out.", None)


def test_the_best_month_of_the_year_is_named():
    assert "December is the best time" in reasons_of(yearly=labelled([*[0.0] * 11, 5.0], MONTHS))[0][1]


def test_only_holidays_of_the_horizon_are_shown_the_next_one_first():
    names = ["Christmas Day", "Thanksgiving Day", "Columbus Day", "New Year's Day"]
    holidays = [{"holiday": name, "day": -10.0} for name in names]
    (holiday,) = reasons(NO_COMPONENTS | {"holidays": holidays}, AHEAD, "US", DOLLARS)
    assert [row[1] for row in holiday.table.rows] == ["Thu 26 Nov 2026", "Fri 25 Dec 2026"]
    assert holiday.answer == "Next: Thanksgiving Day on Thu 26 Nov 2026, -$10 on that day."
    assert holiday.sizes == (-1.0, -1.0)


def test_a_part_that_has_no_effect_or_is_not_known_is_left_out():
    assert reasons_of(weekly=labelled([0.0] * 7, WEEKDAYS)) == []
    yearly = labelled([None, *[1.0] * 10, 2.0], MONTHS)
    assert reasons_of(yearly=yearly, trend=[["2026-11-01", 5.0]]) == []
    assert reasons(None, AHEAD, "US", DOLLARS) == []


# Stores


def stores_of(*stores: tuple[str, list[float | None], list[float]], total: float) -> Any:
    tables = [{"name": n, "history": history(past), "forecast": forecast(ahead)} for n, past, ahead in stores]
    return by_store(tables, total)


def by_store(tables: list[dict[str, Any]], total: float) -> Any:
    columns = ("yhat", "yhat_lower_80", "yhat_upper_80")
    past = read_values(history([10.0] * 400), "y")
    ahead = {column: read_values(forecast([total] * 30), column) for column in columns}
    return by_part(tables, "store", past, ahead, window_total(past, ahead, 30, {}), DOLLARS)


def test_stores_that_add_up_to_the_total_are_said_to_and_come_largest_first():
    view = stores_of(("Small", [2.0] * 400, [3.0] * 30), ("Large", [8.0] * 400, [9.0] * 30), total=12.0)
    assert view.answer == "The 2 stores add up to the total: $360 in the next 30 days."
    assert [(row.name, row.last, row.expected, row.between, row.last_year) for row in view.rows] == [
        ("Large", "$240", "$270", "$243 to $297", "+12.5%"),
        ("Small", "$60", "$90", "$81 to $99", "+50.0%"),
    ]
    assert view.total.expected == "$360"
    assert "The bounds of each store add up the 80% bounds of each day" in view.note


def test_the_bounds_of_a_store_are_as_wide_as_its_own_back_test_measured():
    large = {"name": "Large", "history": history([8.0] * 400), "forecast": forecast([9.0] * 30)}
    small = {"name": "Small", "history": history([2.0] * 400), "forecast": forecast([3.0] * 30)}
    view = by_store([{**large, "widths": {"7": 0.8, "30": 0.5}}, small], 12.0)
    assert [row.between for row in view.rows] == ["$256 to $284", "$81 to $99"]
    assert "The bounds of Small add up the 80% bounds of each day" in view.note
    view = by_store([{**large, "widths": {"30": 0.5}}, {**small, "widths": {"30": 1.1}}], 12.0)
    assert "add up the" not in view.note and "wider than those of all together" in view.note


def test_of_many_stores_the_others_come_last_together_and_without_bounds():
    tables = [
        {
            "name": "2 other stores",
            "history": history([80.0] * 400),
            "forecast": forecast([90.0] * 30),
            "count": 2,
        },
        {"name": "Large", "history": history([8.0] * 400), "forecast": forecast([9.0] * 30)},
    ]
    for side in ("lower", "upper"):
        name = f"yhat_{side}_80"
        others = tables[0]["forecast"]
        nulls = pa.nulls(others.num_rows, pa.float64())
        tables[0]["forecast"] = others.set_column(others.schema.get_field_index(name), name, nulls)
    view = by_store(tables, 99.0)
    assert view.answer == "The 3 stores add up to the total: $2,970 in the next 30 days."
    assert [(row.name, row.expected, row.between) for row in view.rows] == [
        ("Large", "$270", "$243 to $297"),
        ("2 other stores", "$2,700", ""),
    ]


def test_stores_that_do_not_add_up_are_said_not_to():
    view = stores_of(("Small", [2.0] * 400, [3.0] * 30), ("Large", [8.0] * 400, [9.0] * 30), total=15.0)
    assert (
        "add up to $360 in the next 30 days; the total was forecast on its own and says $450" in view.answer
    )


def test_a_new_store_shows_how_many_days_it_has_and_no_last_year():
    view = stores_of(("New", [2.0] * 12, [3.0] * 30), ("Unopened", [], [9.0] * 30), total=12.0)
    assert [(row.last, row.last_year) for row in view.rows] == [
        ("n/a", "opened since"),
        ("$24 in 12 days", "opened since"),
    ]


def test_a_store_whose_forecast_is_shorter_than_the_window_has_no_total_of_it():
    view = stores_of(("Short", [2.0] * 400, [3.0] * 10), ("None", [2.0] * 400, []), total=12.0)
    assert [(row.expected, row.between) for row in view.rows] == [("n/a", "")] * 2
    assert "not every one has a forecast" in view.answer


def test_a_spark_has_whole_weeks_on_one_scale_and_a_forecast_that_goes_on_from_the_past():
    view = stores_of(("Even", [1.0] * 400, [2.0] * 30), ("Loss", [-1.0] * 400, [-1.0] * 30), total=1.0)
    actual, ahead = view.rows[0].spark
    assert (actual.layer, ahead.layer) == ("actual", "forecast")
    assert actual.d.startswith("M0 13L") and actual.d.endswith("L73.5 13")
    assert ahead.d.startswith("M73.5 13L76.5 2L") and ahead.d.count("L") == 4, "30 days are four whole weeks"
    assert view.rows[1].spark[0].d.endswith(" 24")


# What it rests on


def test_missing_and_closed_days_are_counted_and_named():
    days = PeriodValues(date(2026, 1, 1), (1.0, None, None, 0.0, 5.0, None, 7.0, 8.0, 9.0))
    assert data_quality(days, ["Clipped."], {}) == [
        "6 days of history, from Thu 1 Jan 2026 to Fri 9 Jan 2026.",
        "3 days are missing: 2 Jan 2026 to 3 Jan 2026, 6 Jan 2026. The forecast does without them.",
        "1 day is zero (closed, it seems): 4 Jan 2026.",
        "Clipped.",
    ]


def test_fallbacks_and_clipping_of_the_forecast_follow_the_notes():
    diagnostics = {"fallbacks": ["Prophet is left out."], "clipped_yhat_days": 3}
    assert data_quality(PeriodValues(date(2026, 1, 1), (1.0,)), ["A note."], diagnostics)[2:] == [
        "A note.",
        "Prophet is left out.",
        "The forecast was below zero on 3 days and raised to zero there.",
    ]


def test_a_whole_history_says_that_nothing_is_missing_and_many_zeros_are_no_exceptions():
    assert data_quality(PeriodValues(date(2026, 1, 1), (0.0, 0.0, 3.0)), [], {})[1:] == [
        "No day is missing.",
        "2 of 3 days are zero.",
    ]


def test_a_declared_table_is_a_section_of_its_own_and_an_empty_one_is_none():
    needs = {
        "title": "What is <needed>?",
        "name": "supply name",
        "headings": ["Austin", "Brooklyn"],
        "rows": [["lid", 1176.0, 1.25], ["mint", None, 3.0]],
    }
    [table] = more_sections([needs, {**needs, "rows": []}])
    assert table.headings == ("Supply name", "Austin", "Brooklyn")
    assert table.rows == (("lid", "1,176", "1.25"), ("mint", "", "3"))
    page = render(report(sections=[needs, needs]))
    assert page.count("What is &lt;needed&gt;?</h2>") == 2 and '<details class="rows">' not in page
    assert "<summary>26 rows" in render(report(sections=[{**needs, "rows": needs["rows"] * 13}]))
