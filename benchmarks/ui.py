"""What waits cost in the UI: `make bench-ui`, with a browser.

The first page of the asset graph, one asset from the click to its end, and a look of the sensor
`source_updated`, with a short and with a long history.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
from measure import RESULTS

from tests.chromium import chromium
from tests.conftest import SAMPLE_END
from tests.ui.client import REPOSITORY, Ui
from tests.ui.serve import serve

MATERIALIZATIONS = 5_000
ROUNDS = 5
TICK = """
mutation ($selector: SensorSelector!) {
  sensorDryRun(selectorData: $selector, cursor: null) {
    __typename ... on DryRunInstigationTick { evaluationResult { error { message } } }
  }
}
"""
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) { ... on LaunchRunSuccess { run { runId } } }
}
"""


def seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def open_graph(ui: Ui) -> list[float]:
    """The seconds until a browser that was never here, then one that was, shows the graph."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 860})
        page.set_default_timeout(120_000)

        def show() -> None:
            page.goto(f"{ui.url}/asset-groups")
            page.locator("svg").get_by_text("forecasting", exact=True).first.wait_for()

        return [seconds(show), seconds(show)]


def materialize(ui: Ui, asset: str) -> None:
    """Materialize one asset as its button does, and wait for the run's end."""
    params = {
        "selector": {**REPOSITORY, "jobName": "__ASSET_JOB", "assetSelection": [{"path": [asset]}]},
        "runConfigData": {},
    }
    run_id = ui.ask(LAUNCH, params=params)["launchRun"]["run"]["runId"]
    assert ui.status_at_the_end(run_id) == "SUCCESS"


def tick(ui: Ui) -> None:
    selector = {**REPOSITORY, "sensorName": "source_updated"}
    answer = ui.ask(TICK, selector=selector)["sensorDryRun"]
    assert answer["evaluationResult"]["error"] is None, answer


def main() -> None:
    with TemporaryDirectory(prefix="bench-") as folder:
        home = Path(folder, "home")
        with serve(home, {}) as ui:
            assert ui.status_at_the_end(ui.launch()) == "SUCCESS"
            first, again = open_graph(ui)
            figures = {
                "the asset graph in a new browser": first,
                "the asset graph again": again,
                "one unchanged model from the click to its end": statistics.median(
                    seconds(lambda: materialize(ui, "stg_products")) for _ in range(ROUNDS)
                ),
                "a look of source_updated": statistics.median(
                    seconds(lambda: tick(ui)) for _ in range(ROUNDS)
                ),
            }
            with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
                for number in range(MATERIALIZATIONS):
                    instance.report_runless_asset_event(
                        dg.AssetMaterialization("raw_orders", metadata={"number": number})
                    )
            figures[f"a look after {MATERIALIZATIONS:,} more materializations"] = statistics.median(
                seconds(lambda: tick(ui)) for _ in range(ROUNDS)
            )
    for name, figure in figures.items():
        print(f"{name:<50}{figure:>7.2f} s")
    results = {"title": f"Waits in the UI, the sample shop up to {SAMPLE_END}", "seconds": figures}
    (RESULTS / "ui.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
