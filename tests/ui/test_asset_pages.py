"""What people see of an asset without running anything."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, TimeoutError

GROUPS = ("ingestion", "staging", "marts", "aggregations", "forecasting")
COLUMN_LINEAGE = """
query ($path: [String!]!) {
  assetNodes(assetKeys: [{path: $path}]) {
    assetMaterializations(limit: 1) {
      metadataEntries {
        ... on TableColumnLineageMetadataEntry {
          lineage { columnName columnDeps { assetKey { path } columnName } }
        }
      }
    }
  }
}
"""


@pytest.fixture
def body(page):
    return page.locator("body")


def test_the_first_page_shows_the_first_run(ui, page):
    page.goto(ui.url)
    page.wait_for_url("**/overview/**")
    # A job is on the time line as soon as a run of it is, or will be.
    page.get_by_text("serverless_pipeline").first.wait_for()
    page.goto(f"{ui.url}/runs")
    page.get_by_role("link", name="serverless_pipeline").first.wait_for()
    page.get_by_text("Success", exact=True).first.wait_for()


def test_the_ui_prints_no_warning(ui):
    # What a run logs about its data is for its reader.
    printed = [line for line in ui.printed if " - dagster - WARNING - " not in line]
    assert [line for line in printed if re.search("warning|supersed|deprecat", line, re.IGNORECASE)] == []


def test_the_asset_graph_shows_the_layers_from_left_to_right(ui, page):
    page.goto(f"{ui.url}/asset-groups")
    places = []
    for group in GROUPS:
        node = page.locator("svg").get_by_text(group, exact=True).first
        node.wait_for()
        places.append(node.bounding_box()["x"])
    assert places == sorted(set(places))


def is_drawn(asset: Locator) -> bool:
    try:
        asset.wait_for(timeout=3_000)
    except TimeoutError:
        return False
    return True


def test_the_asset_graph_opens_into_every_asset(ui, page, picture):
    page.set_viewport_size({"width": 1500, "height": 1900})
    page.goto(f"{ui.url}/asset-groups")
    page.get_by_text("Hide navigation").click()
    page.get_by_text("Materialize all (24)").wait_for()
    page.locator("body").press("Alt+e")
    graph = page.locator("svg")
    graph.get_by_text("stg_orders", exact=True).first.wait_for()
    corners = ("operations", "raw_products", "raw_items", "daily_revenue", "forecasting", "forecast_report")
    # Only what is in view is drawn.
    while not all(is_drawn(graph.get_by_text(asset, exact=True).first) for asset in corners):
        page.get_by_role("img", name="zoom_out").click()
    # Away from the edges, where the page's own controls are.
    page.get_by_role("img", name="zoom_out").click()
    # How each of them is comes a moment later: green is materialized. The four that are by month stay grey
    # if the shop ends before the current month, as it does in tests.
    page.locator("[style*='--minimal-border: var(--color-accent-green)']").nth(20).wait_for()
    boxes = [graph.get_by_text(name, exact=True).first.bounding_box() for name in corners]
    left, top = (min(box[edge] for box in boxes) - 30 for edge in ("x", "y"))
    width = max(box["x"] + box["width"] for box in boxes) + 50 - left
    height = max(box["y"] + box["height"] for box in boxes) + 50 - top
    picture("asset-graph", scale="device", clip={"x": left, "y": top, "width": width, "height": height})


def test_the_graph_of_a_group_shows_what_is_checked_and_what_it_is_made_of(ui, page, body):
    page.goto(f"{ui.url}/locations/serverless_assets.definitions/asset-groups/forecasting/lineage")
    # Of the total and of the stores.
    page.get_by_text(re.compile(r"[56] / 6 Passed")).nth(1).wait_for()
    page.locator("svg").get_by_text("Materialized", exact=True).first.wait_for()
    said = body.inner_text()
    for kind in ("forecast", "DuckDB", "html"):
        assert kind in said


def test_the_page_of_a_raw_table_says_whose_it_is_where_it_is_and_what_its_columns_mean(
    ui, page, body, picture
):
    page.goto(f"{ui.url}/assets/raw_orders")
    page.get_by_text("What the customer paid, tax included, in cents.").wait_for()
    page.get_by_text("warehouse.dwh.raw_orders").first.wait_for()
    page.get_by_text("source_updated").first.wait_for()
    said = body.inner_text()
    for shown in (
        "One row per order; money in cents.",
        "Owners\ndata",
        "Id of the customer who ordered.",
    ):
        assert shown in said
    assert re.search(r"Row count\n\d{3},\d{3}\n", said)
    code = page.get_by_role("link", name="its declared columns").get_attribute("href")
    assert "/models/staging/raw.yml:" in code
    picture("asset")


def test_the_report_of_the_run_opens_in_the_browser(ui, page, picture):
    page.set_viewport_size({"width": 1200, "height": 1680})
    page.goto((ui.home / "artifacts" / "forecast.html").as_uri())
    page.locator("#chart path[data-layer=forecast]").wait_for()
    below = page.locator("#accuracy").bounding_box()["y"] + 120
    picture("report", clip={"x": 0, "y": 0, "width": 1200, "height": min(1680, below)})


def test_the_page_of_the_report_shows_its_picture(ui, page):
    page.goto(f"{ui.url}/assets/forecast_report")
    page.get_by_text("[Show Markdown]").click()
    shown = page.get_by_role("img", name="history and forecast")
    shown.wait_for()
    assert shown.evaluate("image => image.complete && image.naturalWidth") > 300


def test_the_page_of_the_report_opens_it(ui, page):
    page.goto(f"{ui.url}/assets/forecast_report")
    link = page.locator("a[href^='http://127.0.0.1:'][href$='/forecast.html']").first
    link.wait_for()
    with page.expect_popup() as opened:
        link.click()
    opened.value.locator("#chart path[data-layer=forecast]").wait_for()
    assert opened.value.title() == "Daily order revenue"


def test_the_page_of_the_report_downloads_the_report_of_its_run(ui, page):
    page.goto(f"{ui.url}/assets/forecast_report")
    with page.expect_download() as download:
        page.locator("a[href^='/logs/']").first.click()
    assert download.value.suggested_filename.endswith("__reports__forecast.html")
    assert Path(download.value.path()).read_bytes() == (ui.home / "artifacts" / "forecast.html").read_bytes()


def test_the_page_of_the_forecast_says_how_good_it_is_and_what_it_took(ui, page, body):
    page.goto(f"{ui.url}/assets/order_forecast")
    page.get_by_text("Daily order revenue for the coming days").first.wait_for()
    page.get_by_text("peak_memory_mib").first.wait_for()
    said = body.inner_text()
    for name in ("status", "reason", "seconds", "typical_error", "details", "yhat_lower_95"):
        assert name in said


def test_the_checks_of_an_asset_are_listed_with_how_they_went(ui, page, body):
    page.goto(f"{ui.url}/assets/order_forecast?view=checks")
    page.get_by_text("Checks (6)").wait_for()
    page.get_by_text("Passed", exact=True).first.wait_for()
    said = body.inner_text()
    for check in ("bounds_in_order", "is_complete", "is_finite", "is_not_negative"):
        assert f"forecast_{check}\nSucceeded" in said
    page.get_by_text("forecast_bounds_in_order", exact=True).first.click()
    page.get_by_text("The 95% bounds enclose the 80% bounds, and these the value.").first.wait_for()


def test_a_column_of_a_model_is_traced_to_the_columns_that_it_comes_from(ui):
    # The open-source UI draws no graph of columns: this is what it has of them.
    (node,) = ui.ask(COLUMN_LINEAGE, path=["orders"])["assetNodes"]
    (found,) = [entry for entry in node["assetMaterializations"][0]["metadataEntries"] if entry]
    comes_from = {
        column["columnName"]: {
            (dep["assetKey"]["path"][0], dep["columnName"]) for dep in column["columnDeps"]
        }
        for column in found["lineage"]
    }
    assert comes_from["customer_id"] == {("stg_orders", "customer_id")}
    assert comes_from["count_food_items"] == {("stg_products", "is_food_item")}


def test_no_asset_is_unsynced_after_a_run_that_reused_all(ui):
    run_id = ui.launch(run_inputs={"ingestion": {"reuse": {}}})
    assert ui.status_at_the_end(run_id) == "SUCCESS"
    nodes = ui.ask("{ assetNodes { assetKey { path } staleStatus staleCauses { reason } } }")["assetNodes"]
    unsynced = {node["assetKey"]["path"][-1]: node for node in nodes if node["staleStatus"] == "STALE"}
    assert unsynced == {}
