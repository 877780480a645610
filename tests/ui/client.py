"""What tests ask of a UI, in the words of its GraphQL."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import requests

REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "serverless_assets.definitions"}
OVER = ("SUCCESS", "FAILURE", "CANCELED")
# The total and the stores are forecast in one step.
FORECASTING = (
    "order_forecast", "forecast_accuracy", "forecast_accuracy_by_store", "supply_plan", "forecast_report",
)  # fmt: skip
NO_FORECAST = {"forecast": {"skip": {}}}

LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}
"""
RUN = """
query ($id: ID!) {
  runOrError(runId: $id) {
    ... on Run {
      status startTime endTime runConfigYaml tags { key value } stepStats { stepKey status }
      eventConnection { events { __typename ... on MessageEvent { message stepKey } } }
    }
  }
}
"""
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"

Found = TypeVar("Found")


@dataclass(frozen=True)
class Ui:
    """A UI that is being served, and the home of its runs."""

    url: str
    home: Path
    pid: int
    printed: list[str]

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        body = {"query": query, "variables": variables}
        answer = requests.post(f"{self.url}/graphql", json=body, timeout=60).json()
        assert "errors" not in answer, answer["errors"]
        return dict(answer["data"])

    def launch(self, job: str = "serverless_pipeline", run_inputs: dict[str, Any] | None = None) -> str:
        """Launch a job as the launchpad does, and return the run's id."""
        params = {"selector": {"jobName": job, **REPOSITORY}, "runConfigData": config(run_inputs or {})}
        launched = self.ask(LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def run(self, run_id: str) -> dict[str, Any]:
        return dict(self.ask(RUN, id=run_id)["runOrError"])

    def status(self, run_id: str) -> str:
        return str(self.ask(STATUS, id=run_id)["runOrError"]["status"])

    def status_at_the_end(self, run_id: str) -> str:
        """Ask until the run is over, as the UI does."""
        return until(lambda: status if (status := self.status(run_id)) in OVER else None, f"{run_id} is over")

    def said(self, run_id: str) -> str:
        return "\n".join(
            event.get("message") or "" for event in self.run(run_id)["eventConnection"]["events"]
        )

    def children(self) -> dict[int, psutil.Process]:
        """The processes below the UI's own, by id."""
        return {child.pid: child for child in psutil.Process(self.pid).children(recursive=True)}


def config(run_inputs: dict[str, Any]) -> dict[str, Any]:
    return {"resources": {"run_inputs": {"config": run_inputs}}}


def steps(run: dict[str, Any]) -> dict[str, str]:
    """What became of each step that the run has begun."""
    return {step["stepKey"]: step["status"] for step in run["stepStats"]}


def tags(run: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["tags"]}


def until(look: Callable[[], Found | None], what: str, seconds: float = 240, pause: float = 0.3) -> Found:
    """Look again and again until something is found."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(pause)
    raise AssertionError(f"Waited {seconds:.0f} s in vain until {what}.")


def published(home: Path) -> Sequence[object]:
    """What tells one release from another, and a release from one that was written to."""
    release = (home / "current").resolve()
    files = sorted(path for path in release.rglob("*") if path.is_file())
    return [release, *((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)]
