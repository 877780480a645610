import base64
import hashlib
import json
import math
import random
import re
import subprocess
import sys
import tomllib
from datetime import date, timedelta
from html.parser import HTMLParser
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pyarrow as pa
import pytest

from modal_forecast.report.chart_data import ChartData
from modal_forecast.report.page import render
from modal_forecast.report.preview import preview_svg
from modal_forecast.report.report_input import FOLDER, ReportInput, check_color
from modal_forecast.report.values import PeriodValues, read_values

LAST_ACTUAL = date(2025, 8, 31)
ATTACK = "</script><script>alert(1)</script><!-- \" ' & \u2028 {{ 7 * 7 }} <img src=x onerror=alert(1)>"


def history(values: list[float | None]) -> pa.Table:
    """Values up to LAST_ACTUAL."""
    first = LAST_ACTUAL - timedelta(days=len(values) - 1)
    days = [first + timedelta(days=i) for i in range(len(values))]
    return pa.table({"ds": pa.array(days, pa.date32()), "y": pa.array(values, pa.float64())})


def forecast(values: list[float]) -> pa.Table:
    """Values from the day after LAST_ACTUAL on, give or take a tenth and a fifth."""
    days = [LAST_ACTUAL + timedelta(days=i + 1) for i in range(len(values))]
    factors = {"": 1, "_lower_80": 0.9, "_upper_80": 1.1, "_lower_95": 0.8, "_upper_95": 1.2}
    columns = {f"yhat{suffix}": [value * factor for value in values] for suffix, factor in factors.items()}
    return pa.table({"ds": pa.array(days, pa.date32()), **columns})


def revenue(days: int, seed: int = 1) -> list[float]:
    noise = random.Random(seed)
    return [40_000 + 9_000 * math.sin(day * math.tau / 7) + noise.gauss(0, 2_000) for day in range(days)]


def report(days: int = 400, horizon: int = 30, **options: Any) -> ReportInput:
    return ReportInput(history([*revenue(days)]), forecast(revenue(horizon, seed=2)), **options)


class Document(HTMLParser):
    """The tags, attributes and texts of a page, read as a browser would."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags:
            self.texts.setdefault(self.tags[-1][0], []).append(data)

    def payload(self) -> dict[str, Any]:
        return json.loads(self.texts["script"][0])


# The document


def test_equal_input_gives_an_equal_document_and_picture():
    assert render(report()) == render(report())
    assert preview_svg(report()) == preview_svg(report())


def test_three_years_of_history_and_half_a_year_ahead_stay_small():
    assert len(render(report(days=1_100, horizon=180)).encode()) < 100_000


def test_nothing_in_the_document_leads_outside():
    html = render(report(title="Revenue", facts={"Run": "1"}))
    assert "://" not in html
    assert "@import" not in html and "url(" not in html
    references = [
        value for _, attrs in Document(html).tags for name in ("src", "href") if (value := attrs.get(name))
    ]
    assert [reference for reference in references if reference and not reference.startswith("#")] == [
        "data:,"
    ]


def test_the_browser_is_told_to_load_nothing_and_to_run_only_the_script_and_style_of_the_report():
    html = render(report())
    (policy,) = [attrs["content"] for _, attrs in Document(html).tags if "http-equiv" in attrs]
    script = re.findall(r'<script type="module">(.*?)</script>', html, re.DOTALL)[0]
    style = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)[0]
    assert policy is not None and "default-src 'none'" in policy and "unsafe" not in policy
    for text in (script, style):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy


@pytest.mark.parametrize("option", ["title", "unit", "facts"])
def test_markup_in_what_a_person_wrote_is_shown_and_not_obeyed(option):
    html = render(report(**{option: {ATTACK: ATTACK} if option == "facts" else ATTACK}))
    document = Document(html)
    plain = Document(render(report(**{option: {"a": "b"} if option == "facts" else "c"})))
    assert [tag for tag, _ in document.tags] == [tag for tag, _ in plain.tags]
    assert ATTACK in {text.strip() for texts in document.texts.values() for text in texts} | {
        str(value) for _, attrs in document.tags for value in attrs.values()
    }
    assert "<!--" not in html


def test_a_day_without_a_value_is_null_in_the_chart_data_whichever_way_it_is_missing():
    table = history([1.5, None, math.nan, math.inf, 2.5])
    data = Document(render(ReportInput(table, forecast([3.0])))).payload()
    assert data["views"][0]["layers"][0]["bounds"] == [[1.5, None, None, None, 2.5]]


def test_a_day_without_a_row_is_a_gap_and_the_order_of_rows_does_not_matter():
    table = history([1.0, 2.0, 3.0, 4.0]).take([3, 0, 1])
    assert read_values(table, "y") == PeriodValues(LAST_ACTUAL - timedelta(days=3), (1.0, 2.0, None, 4.0))


def test_the_table_lists_each_forecast_day_with_its_bounds():
    html = render(ReportInput(history([1_000.5]), forecast([1234.5, 2000.0])))
    assert (
        '<th scope="row">2025-09-01</th><td>1,234.50</td><td>1,111.05</td><td>1,357.95</td>'
        "<td>987.60</td><td>1,481.40</td>"
    ) in html
    assert html.count('<th scope="row">') == 2


def test_without_facts_there_is_no_section_about_them():
    assert "How it was made" in render(report(facts={"Run": "1"}))
    assert "How it was made" not in render(report())


def test_a_file_that_a_page_is_made_of_is_packaged():
    """An installed report lacks whatever no pattern of package-data matches."""
    settings = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["modal_forecast.report"]
    packaged = {path for pattern in patterns for path in FOLDER.glob(pattern)}
    files = {path for path in FOLDER.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files and files == packaged


def test_a_report_with_nothing_to_show_is_refused():
    with pytest.raises(ValueError, match="one value of history"):
        ReportInput(history([None, None]), forecast([1.0]))
    with pytest.raises(ValueError, match="one value of forecast"):
        ReportInput(history([1.0]), forecast([]))


@pytest.mark.parametrize(
    ("values", "decimals"),
    [
        ([12_345.67], 2),
        ([1.25], 2),
        ([0.0042], 5),
        ([0.0], 0),
        ([12.0, 8.0], 0),
        ([2.0, 0.0], 1),
        ([12_345_678.9], 0),
    ],
)
def test_decimals_suit_the_size_of_the_values(values, decimals):
    assert ChartData.of(ReportInput(history(values), forecast(values))).decimals == decimals


def test_ranges_that_would_show_the_whole_chart_again_are_not_offered():
    labels = [
        [choice["label"] for choice in ChartData.of(report(days=days)).ranges()] for days in (20, 100, 400)
    ]
    assert labels == [
        ["All", "Forecast only"],
        ["All", "Last 90 days + forecast", "Forecast only"],
        ["All", "Last year + forecast", "Last 90 days + forecast", "Forecast only"],
    ]


# Colours


@pytest.mark.parametrize(
    "color",
    [
        "blue",
        "rebeccapurple",
        "#09f",
        "#1f77b4",
        "#1f77b480",
        "rgb(31, 119, 180)",
        "rgb(12% 46.5% 70% / .5)",
        "rgba(31,119,180,0.5)",
        "hsl(205deg 71% 41%)",
        "hsla(205, 71%, 41%, 50%)",
    ],
)
def test_a_css_colour_is_returned_and_reaches_the_style_sheet(color):
    assert check_color(color) == color
    assert f"--chosen-prediction: {color};" in render(report(color_prediction=color))


def test_case_does_not_matter_in_a_colour():
    assert check_color("Blue") == "blue"
    assert check_color("#09F") == "#09f"


@pytest.mark.parametrize(
    "color",
    [
        "",
        "blu",
        " red",
        "#12",
        "#12345",
        "#12345g",
        "#ff0000\n",
        "transparent",
        "rgb(1,2)",
        "rgb(1,2,3);x",
        "hsl(1,2,3)",
        "rgb(var(--x),2,3)",
        "red;}</style>",
        "var(--x)",
    ],
)
def test_anything_but_a_css_colour_is_refused_with_a_sentence(color):
    with pytest.raises(ValueError, match="is not a colour: use a CSS colour name, #rgb, "):
        check_color(color)
    with pytest.raises(ValueError, match="is not a colour"):
        report(color_history=color)


def test_a_colour_that_was_mistyped_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"Did you mean blue\?"):
        check_color("bleu")


def test_checking_a_colour_loads_neither_arrow_nor_the_template_library():
    code = (
        "import sys; from modal_forecast.report.report_input import check_color; check_color('red');"
        "sys.exit(bool({'jinja2', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The preview


def preview(**options: Any) -> Element:
    """The root of the image, parsed as XML, which an image must be to be drawn."""
    return fromstring(preview_svg(report(**options)))


def paths(image: Element) -> dict[tuple[str, str], str]:
    """(class, layer) -> the path drawn."""
    return {
        (path.attrib["class"], path.attrib["data-layer"]): path.attrib["d"]
        for path in image.iter("{http://www.w3.org/2000/svg}path")
    }


@pytest.mark.parametrize(("days", "horizon"), [(1_100, 730), (20, 14), (400, 1), (1, 1)])
def test_the_preview_is_a_small_image_of_900_by_300_that_draws_every_layer(days, horizon):
    image = preview(days=days, horizon=horizon, title="Cost in $ and $", unit="$")
    assert (image.attrib["width"], image.attrib["height"]) == ("900", "300")
    assert {key for key, path in paths(image).items() if path.startswith("M")} == {
        ("line", "actual"),
        ("line", "forecast"),
        ("area", "interval80"),
        ("area", "interval95"),
    }
    assert len(preview_svg(report(days=days, horizon=horizon))) < 60_000


def test_the_preview_shows_the_last_year_of_history_up_to_where_the_forecast_starts():
    drawn = paths(preview(days=1_100, horizon=180))
    actual, predicted = drawn["line", "actual"], drawn["line", "forecast"]
    assert actual.startswith("M0 ") and actual.count("L") == 364
    assert predicted.count("L") == 179 and predicted.rsplit("L", 1)[1].startswith("100 ")


def test_the_preview_has_the_chosen_colours_and_the_names_as_text():
    text = preview_svg(report(title=ATTACK, unit=ATTACK, color_history="teal", color_prediction="#09f"))
    image = fromstring(text.replace("\u2028", " "))
    assert "teal" in text and "#09f" in text
    assert [element.tag for element in image.iter() if "script" in element.tag or "img" in element.tag] == []
