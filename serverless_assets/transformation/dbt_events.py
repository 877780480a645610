"""dbt's results as events of Dagster, by way of dagster-dbt, which is imported without dbt Core.

dbt runs in a process of its own (dbt_process.py). dagster-dbt would import it into this one, too, which takes
a fifth of a command's cpu; without dbt Core it works from the manifest alone, as it does beside dbt Fusion.
An option not to import dbt Core would replace this.

dagster-dbt's own subclass of `DbtCliEventMessage` for dbt Core is not public: a public one, or a public
function from dbt's event to Dagster's, would replace `DbtMessage`. The methods that it implements are those
that the public class leaves abstract; tests/transformation/test_dbt_message.py fails if an upgrade asks for
others.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from serverless_assets.transformation import dbt_runner

_HIDDEN = "dbt.version"
_is_hidden = _HIDDEN not in sys.modules
if _is_hidden:
    sys.modules[_HIDDEN] = None  # type: ignore[assignment]
try:
    from dagster_dbt import DagsterDbtTranslator, DbtCliEventMessage, dbt_assets
finally:
    if _is_hidden:
        del sys.modules[_HIDDEN]

__all__ = ["DagsterDbtTranslator", "DagsterEvent", "dagster_events", "dbt_assets"]

DagsterEvent = (
    dg.Output | dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckResult | dg.AssetCheckEvaluation
)


class DbtMessage(DbtCliEventMessage):
    """An event of dbt Core."""

    @property
    def is_result_event(self) -> bool:
        """Whether it is the result of a model, a seed, a snapshot or a test of data."""
        node = self.raw_event["data"].get("node_info", {}).get("unique_id", "unit_test")
        return self.raw_event["info"]["name"] in dbt_runner.RESULTS and not node.startswith("unit_test")

    def _get_check_passed(self) -> bool:
        return self._get_node_status() == "pass"

    def _get_check_severity(self) -> dg.AssetCheckSeverity:
        is_warning = self._get_node_status() == "warn"
        return dg.AssetCheckSeverity.WARN if is_warning else dg.AssetCheckSeverity.ERROR


def dagster_events(
    event: dbt_runner.Event,
    manifest: Mapping[str, Any],
    translator: DagsterDbtTranslator,
    context: dg.AssetExecutionContext,
) -> Iterator[DagsterEvent]:
    """What an event of dbt is to Dagster: an output for each model, a check or observations for each test."""
    message = DbtMessage(raw_event=event, event_history_metadata={})
    yield from message.to_default_asset_events(manifest, translator, context)
