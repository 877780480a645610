"""The graph by conditions: what is downstream of changed data is built again. Instead of `source_updated`."""

from collections.abc import Iterable

import dagster as dg

from serverless_assets import metadata
from serverless_assets.ingestion.assets import GROUP as INGESTION

# What follows from the raw tables; these themselves are loaded by a schedule, a person or an API.
DERIVED = dg.AssetSelection.all() - dg.AssetSelection.groups(INGESTION)
EVENTS_A_TICK = 1000


class NewlyBuilt(dg.AutomationCondition[dg.AssetKey]):
    """Since the last tick it was materialized other than by finding that it is as it was.

    The data version of a month follows from the span that was loaded with it: found unchanged in another
    span it has another one.
    """

    @property
    def name(self) -> str:
        return "newly_built"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        before = context.previous_temporal_context
        built = before is not None and _was_built_since(
            context.asset_graph_view.instance, context.key, before.last_event_id or 0
        )
        return dg.AutomationResult(context, context.candidate_subset if built else context.get_empty_subset())


def when_data_changed() -> dg.AutomationCondition:
    """Another data version of anything it depends on, since it was last requested or updated.

    A table that is loaded again, or a model that is reused, keeps its data version: nothing follows.
    What is requested brings along what depends on it, so that one run takes the whole chain.
    """
    condition = dg.AutomationCondition
    changed = condition.data_version_changed() & NewlyBuilt()
    of_any = condition.any_deps_match(changed | condition.will_be_requested())
    return (
        of_any.since_last_handled() & ~condition.any_deps_in_progress() & ~condition.in_progress()
    ).with_label("when_data_changed")


def with_conditions(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The same assets, with the condition on everything but the raw tables."""
    return [found.map_asset_specs(_with_condition) for found in assets]


def _with_condition(spec: dg.AssetSpec) -> dg.AssetSpec:
    if spec.group_name == INGESTION:
        return spec
    return spec.replace_attributes(automation_condition=when_data_changed())


def changed_data() -> dg.AutomationConditionSensorDefinition:
    """The sensor that looks at the conditions. Always off by default: `source_updated` does the same."""
    return dg.AutomationConditionSensorDefinition(
        name="changed_data",
        target=DERIVED,
        default_status=dg.DefaultSensorStatus.STOPPED,
        # Dagster's daemon does not know conditions of one's own.
        use_user_code_server=True,
        description="Build and forecast what is downstream of data that changed. Instead of source_updated.",
    )


def _was_built_since(instance: dg.DagsterInstance, key: dg.AssetKey, event_id: int) -> bool:
    events = instance.fetch_materializations(
        dg.AssetRecordsFilter(key, after_storage_id=event_id), limit=EVENTS_A_TICK
    )
    found = [record.asset_materialization for record in events.records]
    return any(metadata.plain(event.metadata).get(metadata.STATUS) != "reused" for event in found if event)
