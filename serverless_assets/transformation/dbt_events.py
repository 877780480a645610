"""dbt's events: as those of Dagster, as lines of its log, and as what the warehouse did for them.

Events of Dagster come by way of dagster-dbt, which is imported without dbt Core.

dbt runs in a process of its own (dbt_process.py). dagster-dbt would import it into this one, too, which takes
a fifth of a command's cpu; without dbt Core it works from the manifest alone, as it does beside dbt Fusion.
An option not to import dbt Core would replace this.

dagster-dbt's own subclass of `DbtCliEventMessage` for dbt Core is not public: a public one, or a public
function from dbt's event to Dagster's, would replace `DbtMessage`. The methods that it implements are those
that the public class leaves abstract; tests/transformation/test_dbt_message.py fails if an upgrade asks for
others.
"""

import sys
from collections.abc import Iterable, Iterator

import dagster as dg

from modal_forecast.report.formats import counted
from serverless_assets.transformation.dbt_process import MODEL_RESULTS, Event
from serverless_assets.warehouse import JobStats

_HIDDEN = "dbt.version"
_is_hidden = _HIDDEN not in sys.modules
if _is_hidden:
    sys.modules[_HIDDEN] = None  # type: ignore[assignment]
try:
    from dagster_dbt import DagsterDbtTranslator, DbtCliEventMessage, dbt_assets
finally:
    if _is_hidden:
        del sys.modules[_HIDDEN]

__all__ = ["DagsterDbtTranslator", "DagsterEvent", "DbtMessage", "dbt_assets"]

RESULTS = (*MODEL_RESULTS, "LogTestResult")
# Events at the end of a command that repeat those of nodes that failed or warned, each deprecation, or the
# error that is the result of the command.
REPETITIONS = (
    "RunResultError", "RunResultErrorNoMessage", "RunResultFailure", "RunResultWarning",
    "RunResultWarningMessage", "CheckNodeTestFailure", "SQLCompiledPath",
    "MainEncounteredError", "MainStackTrace", "DeprecationsSummary",
)  # fmt: skip

DagsterEvent = (
    dg.Output | dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckResult | dg.AssetCheckEvaluation
)


class DbtMessage(DbtCliEventMessage):
    """An event of dbt Core."""

    @property
    def is_result_event(self) -> bool:
        """Whether it is the result of a model, a seed, a snapshot or a test of data."""
        node = self.raw_event["data"].get("node_info", {}).get("unique_id", "unit_test")
        return self.raw_event["info"]["name"] in RESULTS and not node.startswith("unit_test")

    def _get_check_passed(self) -> bool:
        return self._get_node_status() == "pass"

    def _get_check_severity(self) -> dg.AssetCheckSeverity:
        is_warning = self._get_node_status() == "warn"
        return dg.AssetCheckSeverity.WARN if is_warning else dg.AssetCheckSeverity.ERROR


def log_event(event: Event, log: dg.DagsterLogManager) -> None:
    """Log what an event tells people: warnings and errors, models that were built, rows not counted."""
    info, data = event["info"], event["data"]
    if info["name"] == "SQLCompiledPath" and data["node_info"]["resource_type"] == "test":
        log.info(f"The query of the test {data['node_info']['node_name']}: {data['path']}")
    if info["name"] in REPETITIONS:
        return
    if info["name"] == "LogTestResult" and data.get("status") in ("fail", "warn"):
        verb = "failed" if data["status"] == "fail" else "warns"
        log.warning(f"The test {data['name']} {verb}: {counted(int(data['num_failures']), 'row')}.")
    elif info["name"] in RESULTS and info["level"] in ("warn", "error"):
        message = event["data"].get("run_result", {}).get("message") or ""
        log.warning(f"{info['msg']}\n{message}".strip())
    elif info["level"] in ("warn", "error"):
        # dbt wraps its sentences at 80 characters.
        log.warning(" ".join(info["msg"].split()))
    elif info["name"] in MODEL_RESULTS:
        log.debug(info["msg"])
    if "rows_error" in event["data"]:
        node = event["data"]["node_info"]["node_name"]
        log.warning(f"The rows of {node} were not counted: {event['data']['rows_error']}")


def with_results(events: Iterable[Event]) -> Iterator[Event]:
    """The events, with each node's full result in the event that tells people of it.

    dbt sends the result first, and what it took in another event right after.
    """
    waiting: dict[str, Event] = {}
    for event in events:
        node = event["data"].get("node_info", {}).get("unique_id", "")
        if event["info"]["name"] in RESULTS:
            waiting[node] = event
            continue
        if event["info"]["name"] == "NodeFinished" and node in waiting:
            result = waiting.pop(node)
            result["data"]["run_result"] = event["data"].get("run_result", {})
            yield result
        yield event
    yield from waiting.values()


def job_stats(event: Event) -> JobStats:
    """What the warehouse did for the node whose result an event holds, where its adapter says so."""
    response = event["data"].get("run_result", {}).get("adapter_response", {})
    if not response.get("job_id"):
        return JobStats()
    # Numbers come as floats, as protobuf's JSON has no other.
    figures = (int(response.get(name) or 0) for name in ("bytes_processed", "bytes_billed", "slot_ms"))
    return JobStats((str(response["job_id"]),), *figures)
