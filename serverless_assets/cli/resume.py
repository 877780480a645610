"""What `serverless run --resume` runs: what earlier runs did not finish, in the order of a whole run."""

from collections.abc import Mapping, Set

import dagster as dg

from serverless_assets.asset_keys import asset_key
from serverless_assets.cli.request import RunRefused
from serverless_assets.environments import environment
from serverless_assets.settings import Settings


def assets_to_resume(settings: Settings, job: dg.JobDefinition) -> list[dg.AssetKey]:
    """Return the assets of the job that earlier runs did not finish, and those that keep steps in order.

    Raises:
        RunRefused: there are none.
    """
    # On BigQuery they may be from a run of another machine.
    pending_assets = environment(settings).publisher.pending_assets.read()
    selected = job.asset_layer.selected_asset_keys
    pending = selected & {*map(asset_key, pending_assets)}
    if not pending:
        raise RunRefused(
            f"There is nothing to resume: no earlier run left an asset of the job {job.name!r} unfinished. "
            "Run it without --resume."
        )
    nodes = {key: job.asset_layer.get(key) for key in selected}
    parents = {key: node.parent_keys & selected for key, node in nodes.items()}
    steps = {key: node.assets_def.op.name for key, node in nodes.items()}
    return sorted(_in_order(pending, parents, steps))


def _in_order(
    pending: Set[dg.AssetKey],
    parents: Mapping[dg.AssetKey, Set[dg.AssetKey]],
    steps: Mapping[dg.AssetKey, str],
) -> Set[dg.AssetKey]:
    """Add to the pending assets finished ones that they read from steps that are not finished.

    Dagster takes the order of steps from the assets that it is to run: a forecast would not wait for the step
    of the models if the model that it reads is finished and another one is not.
    """
    steps_before: dict[str, set[str]] = {step: set() for step in steps.values()}
    for key, read in parents.items():
        steps_before[steps[key]] |= {steps[parent] for parent in read} - {steps[key]}
    unfinished, waiting = {steps[key] for key in pending}, set[str]()
    while waiting != (
        later := {step for step, before in steps_before.items() if before & (unfinished | waiting)}
    ):
        waiting = later
    in_order, to_add = set(pending), list(pending)
    while to_add:
        key = to_add.pop()
        for parent in parents[key] - in_order:
            # A parent in the same step only leads to an earlier step.
            is_between = steps[parent] == steps[key] and steps[key] in waiting
            if is_between or (steps[parent] != steps[key] and steps[parent] in unfinished | waiting):
                in_order.add(parent)
                to_add.append(parent)
    return in_order
