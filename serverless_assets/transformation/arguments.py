"""How dbt is told what to build. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from serverless_assets.transformation.fingerprints import Materialization
from serverless_assets.transformation.plan import BuildDecision


def build_arguments(
    building: Sequence[BuildDecision], manifest: Mapping[str, Any], now: datetime
) -> Sequence[str]:
    """The arguments of a dbt build of these models and the tests that can be run on them.

    Incremental models are built from all rows: dbt's own way follows new rows, not corrected ones. Those that
    are built by months, and those whose rows cannot be computed again, say so in their config; microbatch
    models are told by `batches_of`.

    Tests that also read a model further down wait for it to be built: its rows are still the old ones.
    Unit tests are about the code, and run in its own tests.
    """
    return [
        *("build", "--exclude-resource-type", "unit_test", "--indirect-selection", "buildable"),
        "--full-refresh",
        *_event_times(building, now),
        *("--select", *(full_name(decision, manifest) for decision in building)),
    ]


def full_name(decision: BuildDecision, manifest: Mapping[str, Any]) -> str:
    """What selects just this model."""
    return f"fqn:{'.'.join(manifest['nodes'][decision.node.id]['fqn'])}"


def months_variable(building: Iterable[BuildDecision]) -> str:
    """SERVERLESS_MONTHS: `orders=2025-03-01,2025-04-01;daily_revenue=2025-03-01`."""
    return ";".join(
        f"{decision.node.identifier}={','.join(decision.months)}"
        for decision in building
        if decision.months and decision.node.kind == Materialization.BY_MONTH
    )


def batches_of(building: Iterable[BuildDecision]) -> Sequence[str]:
    """The ids of the microbatch models of which some batches are built, and the others stay."""
    return [d.node.id for d in building if d.node.kind == Materialization.MICROBATCH and d.months is not None]


def _event_times(building: Sequence[BuildDecision], now: datetime) -> Sequence[str]:
    """The range of batches to build, for all microbatch models: it holds the months of each."""
    decisions = [d for d in building if d.node.id in batches_of(building)]
    months = sorted(month for decision in decisions for month in decision.months or ())
    if not months:
        return []
    begin = max(months[0], min(d.node.begin for d in decisions))
    following = (date.fromisoformat(months[-1]) + timedelta(days=31)).replace(day=1)
    # A full build ends with the batch of this moment.
    end = min(f"{following}T00:00:00", f"{now:%Y-%m-%dT%H:%M:%S}")
    return ["--event-time-start", begin, "--event-time-end", end]
