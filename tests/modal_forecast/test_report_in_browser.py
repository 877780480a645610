"""The report in a real browser without a network: what a reader sees and can do."""

import re
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from modal_forecast.grain import MONTH, WEEK
from modal_forecast.messages import FORECAST_SCHEMA
from modal_forecast.report.page import render
from modal_forecast.report.report_input import ReportInput
from tests.chromium import needs_chromium
from tests.modal_forecast.report_tab import quietly_open

pytestmark = [needs_chromium, pytest.mark.ui]

START = date(2024, 1, 1)
HISTORY_DAYS = 500
HORIZON = 100
ATTACK = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def report() -> ReportInput:
    """1,000.25 on the first day and one more on each; one day is missing."""
    days = [START + timedelta(days=i) for i in range(HISTORY_DAYS + HORIZON)]
    values = [1_000.25 + i for i in range(HISTORY_DAYS + HORIZON)]
    past: list[float | None] = [*values[:HISTORY_DAYS]]
    past[200] = None
    ahead = values[HISTORY_DAYS:]
    return ReportInput(
        history=pa.table({"ds": days[:HISTORY_DAYS], "y": past}),
        forecast=pa.table(
            {
                "ds": days[HISTORY_DAYS:],
                "yhat": ahead,
                "yhat_lower_80": [value - 100 for value in ahead],
                "yhat_upper_80": [value + 100 for value in ahead],
                "yhat_lower_95": [value - 200 for value in ahead],
                "yhat_upper_95": [value + 200 for value in ahead],
            }
        ),
        title=ATTACK,
        unit="USD",
        facts={ATTACK: ATTACK},
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "forecast.html"
    path.write_text(render(report()), encoding="utf-8")
    return path


def point_at(page: Page, day: int) -> None:
    """Moves the mouse over a day of the chart, counted from its first."""
    x, y = position(page, day)
    page.mouse.move(x, y)


def position(page: Page, day: int) -> tuple[float, float]:
    plot = page.locator("#chart svg svg").bounding_box()
    assert plot is not None
    days = HISTORY_DAYS + HORIZON
    return plot["x"] + (day + 0.5) / days * plot["width"], plot["y"] + plot["height"] / 2


def middle_of_plot(page: Page) -> tuple[float, float]:
    plot = page.locator("#chart svg svg").bounding_box()
    assert plot is not None
    return plot["x"] + plot["width"] / 2, plot["y"] + plot["height"] / 2


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def axis(page: Page) -> list[str]:
    """The labels of both axes."""
    return page.locator("#chart svg > text").all_text_contents()


def test_it_opens_with_both_lines_both_intervals_and_the_start_of_the_forecast(page):
    for layer in ("actual", "forecast", "interval80", "interval95"):
        expect(page.locator(f'path[data-layer="{layer}"]')).to_have_attribute("d", re.compile("^M"))
    expect(page.locator("#chart")).to_contain_text("Forecast from 15 May 2025")
    expect(page.locator("#chart")).to_contain_text("USD")


def test_markup_in_what_a_person_wrote_is_text(page):
    expect(page.locator("h1")).to_have_text(ATTACK)
    expect(page).to_have_title(ATTACK)


def test_the_legend_hides_a_series_and_brings_it_back(page):
    path = page.locator('path[data-layer="interval95"]')
    toggle = button(page, "95% bounds")
    toggle.click()
    expect(path).to_have_count(0)
    expect(toggle).to_have_attribute("aria-pressed", "false")
    toggle.click()
    expect(path).to_have_count(1)


def test_a_range_button_changes_the_days_in_view(page):
    expect(button(page, "All")).to_have_attribute("aria-pressed", "true")
    assert "2024" in axis(page)
    button(page, "Forecast only").click()
    expect(button(page, "Forecast only")).to_have_attribute("aria-pressed", "true")
    assert "2024" not in axis(page)


def test_a_drag_zooms_and_reset_returns(page):
    before = axis(page)
    page.mouse.move(*position(page, 100))
    page.mouse.down()
    page.mouse.move(*position(page, 130), steps=3)
    page.mouse.up()
    assert axis(page) != before
    assert {"15 Apr", "1 May"} <= {*axis(page)}
    button(page, "Reset").click()
    assert axis(page) == before


def test_a_drag_with_shift_moves_what_is_in_view_by_whole_days(page):
    button(page, "Last year + forecast").click()
    in_the_middle = "Thu 2 Jan 2025"
    middle = middle_of_plot(page)
    page.mouse.move(*middle)
    expect(page.locator(".tooltip strong")).to_have_text(in_the_middle)
    page.keyboard.down("Shift")
    page.mouse.down()
    page.mouse.move(middle[0] + 100, middle[1], steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    # It came along, and the range is as wide as before.
    expect(page.locator(".tooltip strong")).to_have_text(in_the_middle)
    expect(button(page, "Last year + forecast")).to_have_attribute("aria-pressed", "false")
    page.mouse.wheel(100, 0)
    page.mouse.move(*middle)
    expect(page.locator(".tooltip strong")).to_have_text(re.compile("[123] Jan 2025"))


def test_a_wheel_with_ctrl_zooms_around_the_day_that_it_points_at(page):
    point_at(page, 100)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    point_at(page, 100)
    expect(page.locator(".tooltip strong")).to_have_text("Wed 10 Apr 2024")
    assert "2025" not in axis(page)


@pytest.mark.parametrize("page", [390], indirect=True)
def test_one_finger_moves_two_zoom_and_the_page_still_scrolls(page):
    screen = page.context.new_cdp_session(page)
    screen.send("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})
    page.locator("#chart").scroll_into_view_if_needed()
    x, y = middle_of_plot(page)
    heading = page.locator(".tooltip strong")

    def touch(kind: str, *fingers: tuple[float, float]) -> None:
        points = [{"x": left, "y": top, "id": number} for number, (left, top) in enumerate(fingers)]
        screen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x, y))
    middle = heading.text_content()
    touch("touchMove", (x + 30, y))
    touch("touchMove", (x + 60, y))
    touch("touchEnd")
    expect(heading).to_have_text(str(middle))
    expect(button(page, "Last year + forecast")).to_have_attribute("aria-pressed", "false")
    before = len(axis(page)), axis(page)
    touch("touchStart", (x - 20, y), (x + 20, y))
    touch("touchMove", (x - 60, y), (x + 60, y))
    touch("touchMove", (x - 140, y), (x + 140, y))
    touch("touchEnd")
    assert (len(axis(page)), axis(page)) != before
    assert any(re.fullmatch(r"\d+ \w{3}", label) for label in axis(page)), "days, where months were"
    scrolled = page.evaluate("scrollY")
    touch("touchStart", (x, y))
    for step in range(1, 6):
        touch("touchMove", (x, y - 30 * step))
    touch("touchEnd")
    page.wait_for_function("before => scrollY > before", arg=scrolled)
    screen.send("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_weeks_and_months_are_whole_sums_of_the_days_in_the_same_range(page):
    button(page, "Forecast only").click()
    button(page, "Weeks").click()
    expect(button(page, "Forecast only")).to_have_attribute("aria-pressed", "true")
    expect(button(page, "95% bounds")).to_be_hidden()
    # Not from Monday, of whose week three days have come.
    expect(page.locator("#chart")).to_contain_text("Forecast from 15 May 2025")
    chart = page.get_by_role("slider", name="Week to read out of the chart")
    chart.focus()
    # From Monday 12 May to Wednesday what came, days 497 to 499, and the forecast from Thursday on.
    begun = sum(1_000.25 + day for day in range(497, 504))
    expect(chart).to_have_attribute(
        "aria-valuetext",
        re.compile(rf"^Week of 12 May 2025, Forecast \${begun:,.0f}, 80% bounds, at the widest"),
    )
    page.keyboard.press("ArrowLeft")
    week = sum(1_000.25 + day for day in range(490, 497))
    expect(chart).to_have_attribute("aria-valuetext", f"Week of 5 May 2025, Actual ${week:,.0f}")
    button(page, "Months").click()
    page.get_by_role("slider", name="Month to read out").focus()
    page.keyboard.press("Home")
    january = sum(1_000.25 + day for day in range(31))
    expect(page.locator(".tooltip")).to_have_text(f"Jan 2024Actual${january:,.0f}")
    expect(page.locator("figcaption")).to_contain_text("Sums of whole calendar months")
    button(page, "Days").click()
    expect(button(page, "95% bounds")).to_be_visible()


def test_a_double_click_resets(page):
    before = axis(page)
    button(page, "Forecast only").click()
    page.locator("#chart").dblclick()
    assert axis(page) == before


def test_pointing_at_a_day_shows_its_date_and_exact_values(page):
    tooltip = page.locator(".tooltip")
    expect(tooltip).to_be_hidden()
    point_at(page, 100)
    expect(tooltip).to_have_text("Wed 10 Apr 2024Actual$1,100.25")
    point_at(page, HISTORY_DAYS)
    expect(tooltip).to_have_text(
        "Thu 15 May 2025Forecast$1,500.2580% bounds$1,400.25 to $1,600.2595% bounds$1,300.25 to $1,700.25"
    )


def test_a_missing_day_has_nothing_to_show(page):
    point_at(page, 200)
    expect(page.locator(".tooltip")).to_be_hidden()


def test_the_keyboard_moves_day_by_day_and_says_what_it_reads(page):
    chart = page.get_by_role("slider")
    chart.focus()
    expect(chart).to_have_attribute("aria-valuetext", re.compile(r"^Thu 15 May 2025, Forecast \$1,500.25, "))
    page.keyboard.press("ArrowLeft")
    expect(chart).to_have_attribute("aria-valuetext", "Wed 14 May 2025, Actual $1,499.25")
    page.keyboard.press("Home")
    expect(chart).to_have_attribute("aria-valuetext", "Mon 1 Jan 2024, Actual $1,000.25")


def test_the_keyboard_takes_the_view_along(page):
    button(page, "Forecast only").click()
    page.get_by_role("slider").focus()
    page.keyboard.press("Home")
    assert "2024" in axis(page)


@pytest.mark.parametrize("page", [390], indirect=True)
def test_on_a_phone_nothing_is_wider_than_the_screen(page):
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    # Bounds are one line below their amount.
    heights = page.locator(".bounded td span").evaluate_all("all => all.map((each) => each.clientHeight)")
    assert heights and max(heights) < 25
    point_at(page, 0)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("page", [390], indirect=True)
def test_on_a_phone_it_opens_on_a_range_whose_days_can_be_told_apart(page):
    expect(button(page, "Last year + forecast")).to_have_attribute("aria-pressed", "true")


def test_on_paper_are_no_buttons_and_the_table_if_it_was_opened(page):
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("#days tr:visible")).to_have_count(0)
    expect(button(page, "All")).to_be_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    page.get_by_role("link", name="All days as a table").press("Enter")
    page.emulate_media(media="print")
    expect(page.locator("#days tr:visible")).to_have_count(HORIZON + 1)


def test_the_link_under_the_chart_opens_the_table_of_all_days(page):
    rows = page.locator("#days").get_by_role("row")
    expect(rows).to_have_count(0)
    page.get_by_role("link", name="All days as a table").press("Enter")
    expect(rows).to_have_count(HORIZON + 1)


def test_the_table_of_all_days_is_saved_as_csv(page):
    page.get_by_role("link", name="All days as a table").press("Enter")
    with page.expect_download() as download:
        button(page, "Download as CSV").click()
    assert download.value.suggested_filename == "forecast.csv"
    header, first, *others = Path(download.value.path()).read_text().splitlines()
    assert header == "ds,yhat,yhat_lower_80,yhat_upper_80,yhat_lower_95,yhat_upper_95"
    assert len(others) == HORIZON - 1
    day, *numbers = first.split(",")
    assert day == "2025-05-15"
    shown = page.locator("#days tbody tr").first.locator("td").all_text_contents()
    assert [f"{float(number):,.2f}" for number in numbers] == shown


def test_the_chart_is_saved_as_a_picture_in_its_colours(page):
    with page.expect_download() as download:
        button(page, "Chart as PNG").click()
    assert download.value.suggested_filename == "forecast.png"
    saved = Image.open(download.value.path()).convert("RGB")
    width = page.evaluate("document.querySelector('#chart svg').clientWidth")
    assert saved.width == pytest.approx(2 * width, abs=2)
    colors = {color for _, color in saved.getcolors(1 << 24)}
    # The line of actuals, that of the forecast, and the page behind them.
    assert {(0, 0, 255), (255, 0, 0)} <= colors
    assert saved.getpixel((saved.width - 1, 0)) == (255, 255, 255)


def test_the_chosen_colour_is_kept_on_a_light_screen_and_made_lighter_on_a_dark_one(page):
    assert lightness(page) == pytest.approx(0.452, abs=0.001), "that of blue"
    page.emulate_media(color_scheme="dark")
    assert lightness(page) == 0.7


def lightness(page: Page) -> float:
    """Of the line of actuals: the first number of oklch(0.452 0.313 264)."""
    stroke = page.evaluate("getComputedStyle(document.querySelector('path[data-layer=actual]')).stroke")
    return float(re.findall(r"[\d.]+", stroke)[0])


# ---- weeks and months


@pytest.mark.parametrize(
    ("grain", "first", "read_out", "marks"),
    [
        (WEEK, date(2024, 1, 1), ["Week of 5 Jan 2026", "Week of 2 Feb 2026"], {"Jan", "Apr", "Jul", "Oct"}),
        (MONTH, date(2018, 1, 1), ["Feb 2026", "Feb 2027"], {"Jan"}),
    ],
)
def test_a_chart_of_weeks_or_months_has_their_marks_and_reads_them_out(
    tab, tmp_path, grain, first, read_out, marks
):
    count = grain.between(first, date(2026, 1, 1))
    days = [grain.start(first, number) for number in range(count + 14)]
    values = [1000.0] * len(days)
    table = pa.table({"ds": days, **dict.fromkeys(FORECAST_SCHEMA.names[1:], values)})
    made = ReportInput(pa.table({"ds": days[:count], "y": values[:count]}), table.slice(count), grain=grain)
    path = tmp_path / "forecast.html"
    path.write_text(render(made), encoding="utf-8")
    with quietly_open(tab, path):
        chart = tab.get_by_role("slider", name=f"{grain.name.capitalize()} to read out")
        chart.focus()
        for key, name in zip(("ArrowRight", "PageDown"), read_out, strict=True):
            tab.keyboard.press(key)
            assert str(chart.get_attribute("aria-valuetext")).startswith(name)
        labels = tab.locator("#chart text:not(.year)[text-anchor=middle]").all_text_contents()
        assert {label for label in labels if label} == marks
        shown = re.sub(r"made on .*? from", "", tab.locator("main").inner_text())
        assert not re.search(r"\bdays?\b", shown, re.IGNORECASE), "of a report that has none"
