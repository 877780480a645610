"""The geometry of the small charts: x in percent of the width, y in pixels from the top."""

from datetime import date, timedelta

import pytest

from modal_forecast.report.formats import compact, plural, share
from modal_forecast.report.plots import (
    area_path,
    bar_plot,
    line_path,
    line_plot,
    round_values,
    spread_labels,
)


def upside_down(value: float) -> float:
    return 10 - value


def test_a_line_goes_from_edge_to_edge_and_breaks_where_a_value_is_missing():
    assert line_path([1.0, 2.0, None, 4.0, 5.0], upside_down) == "M0 9L25 8M75 6L100 5"


def test_a_value_between_missing_ones_is_a_short_dash():
    assert line_path([None, 3.0, None], upside_down) == "M49.6 7L50.4 7"


def test_an_area_goes_there_along_the_upper_side_and_back_along_the_lower_one():
    assert area_path([1.0, 2.0, None], [3.0, 4.0, 5.0], upside_down) == "M0 7L50 6L50 8L0 9Z"


def test_nothing_known_draws_nothing():
    assert line_path([None, None], upside_down) == area_path([], [], upside_down) == ""
    assert line_plot([("actual", [None, None])], []).shapes[0].d == ""


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        (0, 3_000, [0, 1_000, 2_000, 3_000]),
        (2_000, 3_900, [2_000, 3_000, 4_000]),
        (1_000, 3_900, [0, 2_000, 4_000]),
        (-180, 260, [-200, 0, 200, 400]),
        (5, 5, [4, 6]),
        (13.72, 13.79, [10, 15]),
        (0, 0, [0, 0.5, 1.0]),
    ],
)
def test_an_axis_has_round_values_around_all_that_it_shows(low, high, values):
    ticks = round_values(low, high)
    assert ticks[0] <= low and ticks[-1] >= high
    assert 2 <= len(ticks) <= 6 and ticks == sorted(set(ticks))
    assert values[0] == pytest.approx(ticks[0]) or low == high


def test_highest_and_lowest_value_touch_the_marks_that_belong_to_them():
    plot = line_plot([("actual", [0.0, 30.0])], [], height=100)
    assert (plot.marks[0].y, plot.marks[-1].y, plot.zero) == (100, 0, 100)
    assert plot.shapes[0].d == "M0 100L100 0"


def test_no_two_marks_of_an_axis_have_one_label():
    marks = line_plot([("part", [13.71, 13.93])], []).marks
    assert [mark.text for mark in marks] == ["13.7", "13.8", "13.9", "14"]
    marks = line_plot([("part", [1_301.0, 1_326.0])], []).marks
    assert [mark.text for mark in marks] == ["1.3k", "1.31k", "1.32k", "1.33k"]
    marks = line_plot([("part", [13.1, 13.8])], []).marks
    assert [mark.text for mark in marks] == ["13", "13.25", "13.5", "13.75", "14"]


def test_bars_stand_on_zero_or_hang_from_it_in_proportion():
    up, down, none = bar_plot([300.0, -100.0, 0.0], ["a", "b", "c"], ["+300", "-100", "0"], height=132).bars
    assert up.y + up.height == down.y == none.y
    assert up.height == 3 * down.height and none.height == 0
    assert (up.text, down.text, none.text) == ("+300", "-100", "0")
    assert up.x > 0 and up.x + up.width < down.x and none.x + none.width < 100


def test_labels_are_spread_over_the_days_and_stay_inside_the_edges():
    days = [date(2026, 1, 1) + timedelta(days=index) for index in range(31)]
    labels = spread_labels(days, "%d %b")
    assert [(label.x, label.text, label.anchor) for label in labels] == [
        (0, "1 Jan", "start"),
        (33.33, "11 Jan", "middle"),
        (66.67, "21 Jan", "middle"),
        (100, "31 Jan", "end"),
    ]
    assert [label.text for label in spread_labels(days[:1], "%d %b")] == ["1 Jan"]
    assert [label.text for label in spread_labels(days[:2], "%d %b")] == ["1 Jan", "2 Jan"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (310, "310"),
        (999.9, "1k"),
        (1_250, "1.25k"),
        (-2_500_000, "-2.5M"),
        (0.25, "0.25"),
        (3e9, "3bn"),
    ],
)
def test_labels_in_charts_are_short(value, text):
    assert compact(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.794, "79%"), (0.086, "8.6%"), (0, "0%"), (1.0, "100%"), (0.996, "99.6%"), (None, "n/a")],
)
def test_a_share_has_the_digits_that_tell_something(value, text):
    assert share(value) == text


@pytest.mark.parametrize("nouns", ["store stores", "city cities", "day days", "branch branches", "box boxes"])
def test_what_a_team_counts_has_its_regular_plural(nouns):
    one, many = nouns.split()
    assert plural(one) == many
