"""What runs by itself, seen and tried in the browser."""

import pytest

SWITCHES = {
    "daily_forecast": False, "nightly_refresh": False, "source_updated": False,
    "dead_runs": True, "forecast_stale": True, "recovered": True, "run_failed": True,
}  # fmt: skip
SENSOR_TICKS = """
query {
  sensorOrError(sensorSelector: {sensorName: "source_updated", repositoryName: "__repository__",
                                 repositoryLocationName: "serverless_assets.definitions"}) {
    ... on Sensor { sensorState { status ticks(limit: 5) { status } } }
  }
}
"""


def test_all_that_runs_by_itself_is_listed_and_what_launches_runs_is_off(ui, page, picture):
    page.goto(f"{ui.url}/automation")
    page.get_by_text("source_updated", exact=True).first.wait_for()
    page.get_by_text("At 02:00 AM UTC").wait_for()
    page.get_by_text("At 09:00 AM UTC").wait_for()
    # Each row asks for its own switch: with a box to select it, two for each.
    page.locator("[data-index] input").nth(2 * len(SWITCHES) - 1).wait_for(state="attached")
    found = {}
    for row in page.locator("[data-index]").all():
        boxes = row.locator("input")
        # A row has a box to select it, and its switch; a heading has neither.
        if boxes.count() == 2:
            found[row.inner_text().split("\n")[0]] = boxes.nth(1).is_checked()
    assert found == SWITCHES
    picture("automation")


@pytest.fixture
def sensor(ui, page):
    page.goto(f"{ui.url}/locations/serverless_assets.definitions/sensors/source_updated")
    page.get_by_text("Sensor has never run").wait_for()
    return page


def test_a_look_at_the_source_is_tried_without_launching_anything(ui, sensor):
    sensor.get_by_role("button", name="Preview tick result").click()
    sensor.get_by_role("button", name="Continue").click()
    # What the run of everything loaded is taken for what there is.
    sensor.get_by_text("what changes from now on is loaded").first.wait_for()
    assert ui.ask(SENSOR_TICKS)["sensorOrError"]["sensorState"] == {"status": "STOPPED", "ticks": []}
