"""A run's summary: `runs/latest.json` for programs, and the asset `pipeline_runs` for the UI, which plots
what runs take and cost over time."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import dagster as dg

from serverless_assets.asset_keys import asset_key
from serverless_assets.files import write_atomically
from serverless_assets.metadata import COST_UNKNOWN, SPENT, Status
from serverless_assets.names import PIPELINE_RUNS
from serverless_assets.publishing.outcome import AssetOutcome, total

# The summary of the last run, below SERVERLESS_HOME.
LATEST = Path("runs", "latest.json")


@dataclass(frozen=True)
class RunSummary:
    """What one run did. `seconds` is wall-clock time; `report` is where the report that it wrote is, if it
    wrote one, and `warehouse` where people read the tables, if there are any yet."""

    run_id: str
    job: str
    success: bool
    published: bool
    started_at: str
    seconds: float
    report: str | None
    warehouse: str | None
    assets: Sequence[AssetOutcome]

    def as_json(self) -> dict[str, Any]:
        """The document in `runs/latest.json`: outcomes by asset, and totals."""
        document = asdict(self)
        document["assets"] = {
            outcome.asset: {k: v for k, v in asdict(outcome).items() if k != "asset"}
            for outcome in self.assets
        }
        document["totals"] = self.totals
        return document

    @property
    def totals(self) -> Mapping[str, int | float | str]:
        """Numbers of the whole run. What nobody charges for, and no warehouse tells, is left out."""
        statuses = Counter(outcome.status for outcome in self.assets)
        spent = {name: total(getattr(outcome, name) for outcome in self.assets) for name in SPENT}
        unknown = next((outcome.cost_unknown for outcome in self.assets if outcome.cost_unknown), None)
        return {
            **{status: statuses[status] for status in get_args(Status)},
            "rows": sum(outcome.rows or 0 for outcome in self.assets),
            "bytes": sum(outcome.bytes or 0 for outcome in self.assets),
            "seconds": self.seconds,
            **{name: amount for name, amount in spent.items() if amount is not None},
            **({COST_UNKNOWN: unknown} if unknown else {}),
        }


def summarise(
    instance: dg.DagsterInstance,
    run_id: str,
    outcomes: Sequence[AssetOutcome],
    warehouse: str | None,
    published: bool,
) -> RunSummary:
    """The summary of a run that is about to end."""
    record = instance.get_run_record_by_id(run_id)
    if record is None:
        raise ValueError(f"there is no run {run_id}")
    started = record.start_time or record.create_timestamp.timestamp()
    return RunSummary(
        run_id=run_id,
        job=record.dagster_run.job_name,
        success=all(outcome.is_settled for outcome in outcomes),
        published=published,
        started_at=datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        seconds=round(time.time() - started, 3),
        report=next((outcome.path for outcome in outcomes if outcome.path), None),
        warehouse=warehouse,
        assets=outcomes,
    )


def write_summary(home: Path, summary: RunSummary) -> None:
    """Replace `runs/latest.json`."""
    content = json.dumps(summary.as_json(), indent=2) + "\n"
    write_atomically(home / LATEST, content.encode())


def read_summary(home: Path) -> dict[str, Any] | None:
    """The document in `runs/latest.json`; None before the first run."""
    path = home / LATEST
    return json.loads(path.read_text()) if path.exists() else None


GROUP = "operations"


def pipeline_runs(owner: str) -> dg.AssetSpec:
    """The asset. No job makes it: a run that is to write assets leaves one materialization, failed or not."""
    return dg.AssetSpec(
        asset_key(PIPELINE_RUNS),
        group_name=GROUP,
        kinds={"dagster"},
        owners=[owner],
        description=(
            "What each run did, took and cost: seconds, rows and bytes, how many assets were built, reused, "
            "failed and skipped, and, where that is charged for, US dollars."
        ),
    )


def record_of(summary: RunSummary) -> dg.AssetMaterialization:
    """What a run leaves behind: the totals of its summary."""
    verdict = "failed"
    if summary.success:
        verdict = "succeeded" if summary.published else "succeeded, but was not published"
    return dg.AssetMaterialization(
        asset_key(PIPELINE_RUNS),
        description=f"Run {summary.run_id[:8]} of {summary.job} {verdict}.",
        metadata={**summary.totals, "run": summary.run_id, "job": summary.job},
    )
