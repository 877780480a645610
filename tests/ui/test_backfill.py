"""A range of months is one run, whoever asks for it."""

import pytest

from tests.ui.client import NO_FORECAST, config, tags, until

LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}
"""
BACKFILL = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status numPartitions error { message } runs { runId } }
  }
}
"""
BACKFILLS = "{ partitionBackfillsOrError { ... on PartitionBackfills { results { id } } } }"
pytestmark = pytest.mark.usefixtures("nothing_pending")
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@pytest.fixture
def at_the_end(ui):
    def at_the_end(backfill_id):
        """The status of a backfill that is over, how many months it was for, and its runs."""

        def look():
            found = ui.ask(BACKFILL, id=backfill_id)["partitionBackfillOrError"]
            return None if found["status"] == "REQUESTED" else found

        found = until(look, "the backfill is over")
        runs = [ui.run(run["runId"]) for run in found["runs"]]
        return found["status"], found["numPartitions"], runs

    return at_the_end


def test_a_range_of_months_is_one_run_with_the_choices_that_were_made(ui, at_the_end):
    params = {
        "assetSelection": [{"path": ["raw_orders"]}, {"path": ["raw_items"]}],
        "partitionNames": ["2025-01-01", "2025-02-01", "2025-03-01"],
        "runConfigData": config({"ingestion": {"reload": {}}, **NO_FORECAST}),
    }
    launched = ui.ask(LAUNCH, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    status, months, (run,) = at_the_end(launched["backfillId"])
    assert (status, months, run["status"]) == ("COMPLETED_SUCCESS", 3, "SUCCESS")
    assert [tags(run)[tag] for tag in RANGE] == ["2025-01-01", "2025-03-01"]
    assert "skip: {}" in run["runConfigYaml"]
    assert "reload: {}" in run["runConfigYaml"]


def test_a_range_of_months_is_chosen_and_launched_by_hand(ui, page, at_the_end):
    before = backfills(ui)
    page.goto(f"{ui.url}/assets/raw_orders")
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Show all partitions").click()
    dialog.get_by_text("Backfills all partitions in a single run.").wait_for()
    chosen = dialog.get_by_role("textbox").first
    chosen.fill("[2026-02-01...2026-04-01]")
    chosen.press("Enter")
    dialog.get_by_text("3 partitions").first.wait_for()
    dialog.get_by_role("button", name="Launch backfill").click()
    backfill_id = until(lambda: next(iter(backfills(ui) - before), None), "the backfill is launched")
    page.goto(f"{ui.url}/runs/b/{backfill_id}")
    page.get_by_text("2026-02-01...2026-04-01").first.wait_for()
    page.get_by_text("100% completed").first.wait_for(timeout=180_000)
    status, months, (run,) = at_the_end(backfill_id)
    assert (status, months, run["status"]) == ("COMPLETED_SUCCESS", 3, "SUCCESS")
    assert [tags(run)[tag] for tag in RANGE] == ["2026-02-01", "2026-04-01"]


def backfills(ui):
    return {found["id"] for found in ui.ask(BACKFILLS)["partitionBackfillsOrError"]["results"]}
