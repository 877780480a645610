"""What became of the runs that were launched for a change at the source."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.storage.tags import ROOT_RUN_ID_TAG

from serverless_assets.automation.source_changes import Fate
from serverless_assets.automation.tags import SOURCE_CHANGE


def fate_of(instance: dg.DagsterInstance, keys: Sequence[str]) -> Fate:
    """What became of the runs with these keys; one that somebody re-executed has the best of its fates."""
    first = instance.get_runs(dg.RunsFilter(tags={SOURCE_CHANGE: list(keys)}))
    ids = [run.run_id for run in first]
    again = instance.get_runs(dg.RunsFilter(tags={ROOT_RUN_ID_TAG: ids})) if ids else []
    key_of = {run.run_id: run.tags[SOURCE_CHANGE] for run in first}
    attempts: dict[str, dict[str, dg.DagsterRun]] = {key: {} for key in keys}
    for run in [*first, *again]:
        attempts[key_of.get(run.run_id) or key_of[run.tags[ROOT_RUN_ID_TAG]]][run.run_id] = run
    waiting, failed = [], []
    for key in keys:
        runs = list(attempts[key].values())
        if any(run.status == dg.DagsterRunStatus.SUCCESS for run in runs):
            continue
        unfinished = [run.run_id for run in runs if not run.is_finished]
        waiting += unfinished
        # The newest comes first.
        failed += [] if unfinished else [run.run_id for run in runs[:1]]
    if waiting:
        return Fate("running", waiting)
    if not all(attempts.values()):
        return Fate("gone")
    return Fate("failed", failed) if failed else Fate("succeeded")
