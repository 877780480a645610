"""The dbt models as assets, and dbt's tests as their checks."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, dbt_assets
from dagster_dbt.asset_utils import get_subset_selection_for_context
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage
from dagster_dbt.dbt_manifest import validate_manifest

from serverless_assets import metadata
from serverless_assets.failures import in_words
from serverless_assets.publishing.release import Release
from serverless_assets.run_inputs import RunInputs
from serverless_assets.transformation import dbt
from serverless_assets.transformation.project import PROJECT_DIR, Project
from serverless_assets.warehouse import Warehouse

DbtEvent = (
    dg.Output | dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckResult | dg.AssetCheckEvaluation
)


class GroupByFolder(DagsterDbtTranslator):
    """The folder below models/ is the group."""

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        _, folder, *_ = dbt_resource_props["fqn"]
        return str(folder)


def transformation_assets(project: Project) -> dg.AssetsDefinition:
    """An asset for each model of the dbt project, all in one step."""
    manifest_path = project.manifest()
    translator = GroupByFolder()

    @dbt_assets(
        name="transformation",
        manifest=manifest_path,
        dagster_dbt_translator=translator,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def transformation(
        context: dg.AssetExecutionContext, run_inputs: RunInputs, release: dg.ResourceParam[Release]
    ) -> Iterator[Any]:
        run_inputs.choices()
        manifest = validate_manifest(manifest_path)
        select, indirect_selection = get_subset_selection_for_context(
            context, manifest, None, None, None, translator, None
        )
        variables = {**project.variables, "SERVERLESS_RUN_ID": context.run.run_id}
        if indirect_selection:
            variables["DBT_INDIRECT_SELECTION"] = indirect_selection
        build = dbt.stream(
            # Unit tests are about the code, and run in its own tests.
            ["build", "--exclude-resource-type", "unit_test", *select],
            PROJECT_DIR,
            project.target / "runs",
            variables,
            project.partial_parse,
        )
        with in_words():
            for event in dbt.with_results(build):
                _log(context, event)
                for found in _dagster_events(event, manifest, translator, context):
                    yield _with_outcome(found, event, release.warehouse, manifest)

    return transformation


def _dagster_events(
    event: dbt.Event,
    manifest: Mapping[str, Any],
    translator: DagsterDbtTranslator,
    context: dg.AssetExecutionContext,
) -> Iterator[DbtEvent]:
    message = DbtCoreCliEventMessage(raw_event=event, event_history_metadata={})
    yield from message.to_default_asset_events(manifest, translator, context)


def _with_outcome(
    found: DbtEvent, event: dbt.Event, warehouse: Warehouse, manifest: Mapping[str, Any]
) -> DbtEvent:
    if not isinstance(found, dg.Output):
        return found
    node = manifest["nodes"][found.metadata["unique_id"].value]
    described = metadata.outcome(
        "built",
        "asked for in this run",
        rows=warehouse.row_count(node["alias"]),
        seconds=cast("float", found.metadata["Execution Duration"].value),
    )
    return found.with_metadata({**found.metadata, **described, **metadata.work(dbt.work(event))})


def _log(context: dg.AssetExecutionContext, event: dbt.Event) -> None:
    info = event["info"]
    if info["level"] in ("warn", "error"):
        context.log.warning(info["msg"])
    elif info["name"] in ("LogModelResult", "LogSeedResult", "LogSnapshotResult"):
        context.log.info(info["msg"])
