"""The asset `pipeline_runs`: a point for each run, so that the UI plots what runs take and cost over time."""

import dagster as dg

from serverless_assets.publishing.summary import RunSummary

NAME, GROUP = "pipeline_runs", "operations"


def pipeline_runs(owner: str) -> dg.AssetSpec:
    """The asset. No job makes it: a run that is to write assets leaves one materialization, failed or not."""
    return dg.AssetSpec(
        NAME,
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
    verdict = "succeeded" if summary.success else "failed"
    return dg.AssetMaterialization(
        NAME,
        description=f"Run {summary.run_id[:8]} of {summary.job} {verdict}.",
        metadata={**summary.totals, "run": summary.run_id, "job": summary.job},
    )
