"""The report on the sample shop in a real browser: its answers equal figures worked out here anew."""

import re
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from modal_forecast.report.page import render
from modal_forecast.report.report_input import ReportInput
from tests.chromium import needs_chromium
from tests.modal_forecast.report_demo import END, demo
from tests.modal_forecast.report_tab import quietly_open

pytestmark = [needs_chromium, pytest.mark.ui]
ATTACK = "</script><script>document.title='owned'</script>\"'><img src=x onerror=\"document.title='owned'\">"
SECTIONS = [
    "What should I expect?",
    "How does it look?",
    "What about each week and month?",
    "How sure is it?",
    "Why does it say so?",
    "How good were earlier forecasts?",
    "What about each store?",
    "What does each store need?",
    "What does it rest on?",
]
# More rows than are shown without being asked for.
NEEDS = {
    "title": "What does each store need?",
    "name": "supply",
    "headings": ["Austin", "Brooklyn"],
    "rows": [[f"Supply {row}", row, None] for row in range(32)],
}


@pytest.fixture(scope="module")
def report() -> ReportInput:
    return demo(sections=[NEEDS])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, report: ReportInput) -> Path:
    return written(tmp_path_factory.mktemp("demo") / "forecast.html", report)


def written(path: Path, report: ReportInput) -> Path:
    path.write_text(render(report), encoding="utf-8")
    return path


def section(page: Page, question: str) -> Locator:
    return page.get_by_role("region", name=question, exact=True)


def dollars(value: float) -> str:
    return f"${value:,.0f}"


def sum_of(table: pa.Table, first: date, days: int) -> float:
    window = {first + timedelta(days=index) for index in range(days)}
    rows = zip(table["ds"].to_pylist(), table["y"].to_pylist(), strict=True)
    return sum(value for day, value in rows if day in window and value is not None)


def test_the_questions_come_in_the_order_of_a_decision(page):
    assert page.get_by_role("heading", level=2).all_text_contents() == SECTIONS


def test_the_outlook_says_totals_with_their_bounds_and_last_year(page, report):
    outlook = section(page, "What should I expect?")
    ahead, lower, upper = (
        report.forecast[name].to_numpy() for name in ("yhat", "yhat_lower_80", "yhat_upper_80")
    )
    for days in (7, 30, 90):
        last_year = sum_of(report.history, END + timedelta(days=1) - timedelta(weeks=52), days)
        card = outlook.locator(f".cards > div:has-text('Next {days} days')")
        expect(card.locator(".value")).to_have_text(dollars(ahead[:days].sum()))
        bounds = f"at the widest between {dollars(lower[:days].sum())} and {dollars(upper[:days].sum())}"
        expect(card).to_contain_text(bounds)
        change = ahead[:days].sum() / last_year - 1
        expect(card).to_contain_text(f"{change:+.1%} on last year's {dollars(last_year)}")


def test_how_sure_it_is_are_the_figures_of_the_back_test(page, report):
    sure, scores = section(page, "How sure is it?"), report.diagnostics["backtest"]
    naive = report.diagnostics["candidates"]["seasonal_naive_7"]
    expect(sure).to_contain_text(
        f"It errs {1 - scores['wape'] / naive['wape']:.0%} less than repeating last week's"
    )
    for label, name in (("80%", "coverage_80"), ("95%", "coverage_95")):
        card = sure.locator(f".cards > div:has-text('inside the {label}')")
        expect(card.locator(".value")).to_have_text(f"{scores[name]:.0%}")
    last = report.diagnostics["last_origin"]
    rows = [*zip(last["actual"], last["lower_80"], last["upper_80"], strict=True)]
    inside = sum(lower <= actual <= upper for actual, lower, upper in rows)
    expect(sure).to_contain_text(f"{inside} of {len(rows)} fell inside")
    expect(page.get_by_text("Careful.")).to_have_count(0)


def test_why_shows_trend_week_year_and_holidays(page, report):
    why, weekly = section(page, "Why does it say so?"), report.diagnostics["components"]["weekly"]
    assert why.get_by_role("heading", level=3).all_text_contents() == ["Trend", "Week", "Year", "Holidays"]
    best, effect = max(weekly, key=lambda labelled: labelled[1])
    expect(why).to_contain_text(f"{best} is the best day (+{dollars(effect)} against the average)")
    expect(why.locator(".plot rect")).to_have_count(7)
    expect(why).to_contain_text("Next: Thanksgiving Day on Thu 26 Nov 2026")


def test_earlier_forecasts_are_listed_with_what_came_of_them(page, report):
    earlier = section(page, "How good were earlier forecasts?")
    assert report.track_record is not None
    rows = earlier.get_by_role("region", name="Earlier forecasts").get_by_role("row")
    expect(rows).to_have_count(1 + len(report.track_record["vintages"]))
    one = report.track_record["compared"]
    expect(earlier).to_contain_text(f"{dollars(sum(one['actual']))} came and {dollars(sum(one['yhat']))} was")


def test_the_rows_of_the_stores_are_their_sums_and_their_total_is_that_of_the_page(page, report):
    stores = section(page, "What about each store?")
    for store in report.parts:
        row = stores.get_by_role("row").filter(has_text=store["name"])
        expect(row).to_contain_text(dollars(sum_of(store["history"], END - timedelta(days=29), 30)))
        expect(row).to_contain_text(dollars(store["forecast"]["yhat"].to_numpy()[:30].sum()))
    total = dollars(sum(store["forecast"]["yhat"].to_numpy()[:30].sum() for store in report.parts))
    expect(stores).to_contain_text(f"The 6 stores add up to the total: {total}")


def test_what_it_rests_on_counts_days_and_repeats_the_notes(page, report):
    rests = section(page, "What does it rest on?")
    expect(rests).to_contain_text(
        f"{report.history.num_rows - report.history['y'].null_count} days of history"
    )
    for sentence in ("1 day is missing", "4 days are zero (closed, it seems)", *report.notes):
        expect(rests).to_contain_text(sentence)


def test_every_chart_has_its_numbers_as_a_table_within_reach_of_the_keyboard(page):
    charts, numbers = page.locator("main .plot"), page.locator("details.numbers")
    expect(charts).to_have_count(5)
    expect(numbers).to_have_count(5)
    for index in range(5):
        expect(charts.nth(index)).to_have_attribute("aria-label", re.compile(r"\w+\. \w+"))
        numbers.nth(index).locator("summary").press("Enter")
        expect(numbers.nth(index).get_by_role("table")).to_be_visible()


def test_all_that_scrolls_can_be_reached_by_tab(page):
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('aria-label')"))
    assert {"Day to read out of the chart", "Stores", "Earlier forecasts", "Holidays ahead"} <= reached


@pytest.mark.parametrize("page", [360], indirect=True)
def test_on_the_smallest_phone_nothing_is_wider_than_the_screen(page):
    page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_paper(page, scheme):
    page.emulate_media(color_scheme=scheme)
    paper = color(page, "html", "backgroundColor")
    for selector in ("h1", ".answer", ".note", ".beside", "thead th", ".numbers summary"):
        assert contrast(color(page, selector, "color"), paper) >= 4.5, selector
    assert contrast(color(page, ".plot text", "fill"), paper) >= 4.5
    for selector, part in ((".bar", "fill"), (".line[data-layer=actual]", "stroke")):
        assert contrast(color(page, selector, part), paper) >= 3, selector


@pytest.mark.parametrize("chosen", ["yellow", "white", "black"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_line_in_any_chosen_colour_can_be_seen(tab, tmp_path, report, chosen, scheme):
    file = written(tmp_path / "color.html", replace(report, color_prediction=chosen))
    with quietly_open(tab, file):
        tab.emulate_media(color_scheme=scheme)
        line = color(tab, ".line[data-layer=forecast]", "stroke")
        assert contrast(line, color(tab, "html", "backgroundColor")) >= 3


def color(page: Page, selector: str, part: str) -> list[int]:
    """Red, green and blue, 0..255, as a canvas paints it."""
    script = """([selector, part]) => {
        const canvas = new OffscreenCanvas(1, 1).getContext("2d");
        canvas.fillStyle = getComputedStyle(document.querySelector(selector))[part];
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    }"""
    return page.evaluate(script, [selector, part])


def contrast(one: list[int], other: list[int]) -> float:
    """As WCAG defines it, 1..21."""
    lights = sorted(np.dot([0.2126, 0.7152, 0.0722], [linear(v / 255) for v in of]) for of in (one, other))
    return float((lights[1] + 0.05) / (lights[0] + 0.05))


def linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def test_on_a4_it_takes_two_pages_and_no_chart_is_cut(page):
    page.emulate_media(media="print")
    pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.count(b"/Type /Page\n") == 2
    assert b"/MediaBox [0 0 595" in pdf or b"/MediaBox [0 0 594" in pdf
    for figure in page.locator("figure").all():
        assert figure.evaluate("(of) => getComputedStyle(of).breakInside") == "avoid"
    expect(page.locator("details.numbers").first).to_be_hidden()
    expect(page.locator(".plot").first).to_be_visible()
    expect(page.get_by_role("heading", name=NEEDS["title"])).to_be_hidden()
    expect(page.get_by_role("region", name="Methods that were tried")).to_be_hidden()
    # What a reader opens is printed.
    page.evaluate("document.querySelector('details.rows').open = true")
    expect(page.get_by_role("heading", name=NEEDS["title"])).to_be_visible()
    expect(page.get_by_role("row", name="Supply 31")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", [1200, 390], indirect=True)
def test_axe_reports_nothing(page, scheme):
    page.emulate_media(color_scheme=scheme)
    # One of each kind: axe takes seconds for each long table.
    for summary in ("Methods and compute", "The numbers: Effect of the weekday"):
        page.get_by_text(summary).click()
    violations = Axe().run(page).response["violations"]
    assert [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in violations] == []


def test_the_day_of_a_holiday_is_named_by_it(page):
    page.locator("#chart").focus()
    # The forecast begins on Wednesday, 25 November 2026.
    page.keyboard.press("ArrowRight")
    expect(page.locator(".tooltip strong")).to_have_text("Thu 26 Nov 2026, Thanksgiving Day")


def test_who_wants_less_motion_gets_none(page):
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "smooth"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    page.emulate_media(reduced_motion="no-preference")


def test_a_forecast_that_does_not_beat_naive_says_so_at_the_top(tab, tmp_path, report):
    losing = {**report.diagnostics, "skill": -0.2, "beats_naive": False}
    with quietly_open(tab, written(tmp_path / "losing.html", replace(report, diagnostics=losing))):
        expect(section(tab, SECTIONS[0])).to_contain_text(
            "It errs 20% more than repeating last week's same days."
        )
        tab.get_by_role("link", name="How sure is it?").click()
        expect(section(tab, SECTIONS[3]).locator(".warning")).to_be_in_viewport()


def test_what_was_not_given_is_left_out_or_said_to_be_unknown(tab, tmp_path, report):
    bare = ReportInput(report.history, report.forecast, track_record={"vintages": []})
    with quietly_open(tab, written(tmp_path / "bare.html", bare)):
        assert tab.get_by_role("heading", level=2).all_text_contents() == [
            question for index, question in enumerate(SECTIONS) if index not in (4, 6, 7)
        ]
        expect(section(tab, "How sure is it?")).to_contain_text("Not known: no back-test")
        expect(section(tab, "How good were earlier forecasts?")).to_contain_text("Nothing to compare yet")
        expect(section(tab, "What should I expect?")).to_contain_text("at the widest between")


def test_names_with_markup_are_text_wherever_they_come_from(tab, tmp_path, report):
    file = written(tmp_path / "hostile.html", hostile(report))
    with quietly_open(tab, file):
        assert "owned" not in tab.title()
        expect(tab.locator("img")).to_have_count(0)
        expect(tab.locator("script")).to_have_count(2)
        expect(section(tab, "What about each store?")).to_contain_text(ATTACK)
        tab.get_by_text("Methods and compute").click()
        expect(section(tab, "What does it rest on?").get_by_text(ATTACK.capitalize()).first).to_be_visible()
        expect(section(tab, "What does it rest on?")).to_contain_text(ATTACK)


def hostile(report: ReportInput) -> ReportInput:
    candidates = {**report.diagnostics["candidates"], ATTACK: {"mase": 1.0, "weight": 1.0}}
    return replace(
        report,
        diagnostics={**report.diagnostics, "candidates": candidates},
        parts=[{**store, "name": ATTACK} for store in report.parts],
        notes=[ATTACK],
    )


def test_fifty_stores_of_three_years_stay_small(report):
    count, first = 3 * 365, END - timedelta(days=3 * 365 - 1)
    days = [first + timedelta(days=index) for index in range(count)]
    values = np.random.default_rng(1).normal(1_000, 100, count)
    past = pa.table({"ds": pa.array(days, pa.date32()), "y": values})
    stores = [{"name": f"Store {i}", "history": past, "forecast": report.forecast} for i in range(50)]
    assert len(render(replace(report, parts=stores)).encode()) < 250_000
    assert len(render(report).encode()) < 150_000
