"""How dbt is told what to build. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serverless_assets.transformation.plan import Decision


def build_arguments(building: Iterable[Decision], manifest: Mapping[str, Any]) -> Sequence[str]:
    """The arguments of a dbt build of these models and the tests that can be run on them.

    Tests that also read a model further down wait for it to be built: its rows are still the old ones.
    Unit tests are about the code, and run in its own tests.
    """
    return [
        *("build", "--exclude-resource-type", "unit_test", "--indirect-selection", "buildable"),
        *("--select", *(full_name(decision, manifest) for decision in building)),
    ]


def full_name(decision: Decision, manifest: Mapping[str, Any]) -> str:
    """What selects just this model."""
    return f"fqn:{'.'.join(manifest['nodes'][decision.node.id]['fqn'])}"


def months_variable(building: Iterable[Decision]) -> str:
    """SERVERLESS_MONTHS: `orders=2025-03-01,2025-04-01;daily_revenue=2025-03-01`."""
    return ";".join(
        f"{decision.node.name}={','.join(decision.months)}" for decision in building if decision.months
    )
