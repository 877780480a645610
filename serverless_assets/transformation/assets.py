"""The dbt models as assets, and dbt's tests as their checks."""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg

from serverless_assets import metadata
from serverless_assets.failures import as_failure
from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.names import TRANSFORMATION
from serverless_assets.partitions import partitions_by_month, window_of_run
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import RunInputs
from serverless_assets.transformation.build import DbtBuild
from serverless_assets.transformation.dbt_events import DagsterDbtTranslator, dbt_assets
from serverless_assets.transformation.fingerprints import ProjectCode
from serverless_assets.transformation.green_build import keep_manifest, settle_deleted
from serverless_assets.transformation.manifest import (
    dbt_asset_key,
    is_model,
    parsed_manifest,
    schemas_of_models,
)
from serverless_assets.transformation.nodes import Materialization
from serverless_assets.transformation.plan import LeftOut, plan_models, refuse_left_out
from serverless_assets.transformation.project import Project


class Translator(DagsterDbtTranslator):
    """The keys, groups, partitions and checks of the models' assets.

    The group is that of `meta: {dagster: {group}}` or dbt's own, else the folder below models/. The models
    `by_month` have the partitions `months`.
    """

    def __init__(
        self, by_month: Collection[str] = (), months: dg.TimeWindowPartitionsDefinition | None = None
    ) -> None:
        super().__init__()
        self._by_month, self._months = by_month, months

    def get_partitions_def(
        self, dbt_resource_props: Mapping[str, Any]
    ) -> dg.TimeWindowPartitionsDefinition | None:
        return self._months if dbt_resource_props["unique_id"] in self._by_month else None

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        return dbt_asset_key(dbt_resource_props)

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        _, *folders, _ = dbt_resource_props["fqn"]
        folder = folders[0] if folders else f"{dbt_resource_props['resource_type']}s"
        group = super().get_group_name(dbt_resource_props) or folder
        # Dagster takes letters, digits and underscores alone.
        return re.sub(r"\W", "_", group, flags=re.ASCII)

    def get_asset_check_spec(
        self, asset_spec: dg.AssetSpec, manifest: Mapping[str, Any], unique_id: str, project: Any
    ) -> dg.AssetCheckSpec | None:
        spec = super().get_asset_check_spec(asset_spec, manifest, unique_id, project)
        return spec and dg.AssetCheckSpec(
            spec.name,
            asset=spec.asset_key,
            description=spec.description or describe_test(manifest["nodes"][unique_id]),
            additional_deps=spec.additional_deps,
            metadata=spec.metadata,
            blocking=spec.blocking,
        )


# What dbt's own generic tests and the bundled ones say, given their arguments.
TESTS = {
    "not_null": "{column_name} is never null.",
    "unique": "No two rows have the same {column_name}.",
    "unique_combination_of_columns": "No two rows have the same {columns}.",
    "accepted_values": "{column_name} is one of: {values}.",
    "relationships": "Every {column_name} is the {field} of a row of {to}.",
    "expression_is_true": "In every row: {expression}",
    "totals_equal": "{total} is equal to {to_total} of {to}.",
}


def describe_test(test: Mapping[str, Any]) -> str:
    """Return what a test of a manifest checks: its own description, or one made of its arguments."""
    if test["description"]:
        return str(test["description"]).strip()
    generic = test.get("test_metadata")
    if not generic:
        return f"{test['original_file_path']} returns no row."
    arguments = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value).strip()
        for name, value in generic["kwargs"].items()
        if name != "model"
    }
    if "to" in arguments:
        # ref('stg_orders')
        arguments["to"] = re.sub(r"\w+\(.*'(\w+)'\)", r"\1", arguments["to"])
    arguments.setdefault("to_total", arguments.get("total", ""))
    try:
        return TESTS[generic["name"]].format_map(arguments)
    except KeyError:
        return f"{generic['name']}: " + ", ".join(
            f"{name} {value}" for name, value in arguments.items() if value
        )


def transformation_assets(
    project: Project, first_month: date, pool: str, absent: Collection[str] = ()
) -> dg.AssetsDefinition:
    """An asset for each model of the dbt project, all in one build.

    Args:
        first_month: the first partition of the models that are built month by month.
        absent: the raw tables that the source lacks as it stands in for another.
    """
    manifest_path = project.manifest()
    # dagster-dbt keeps a manifest that it is given by its path for as long as the process lives.
    content = manifest_path.read_bytes()
    manifest = parsed_manifest(content)
    months = partitions_by_month(first_month)
    code = ProjectCode(manifest, {}, {})
    models = filter(is_model, manifest["nodes"].values())
    by_month = {node["unique_id"] for node in models if code.kind(node) == Materialization.BY_MONTH}
    translator = Translator(by_month, months)
    raw_tables = {source["identifier"] for source in manifest["sources"].values() if is_raw_table(source)}

    @dbt_assets(
        name=TRANSFORMATION,
        manifest=manifest,
        dagster_dbt_translator=translator,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=pool,
    )
    def transformation(
        context: dg.AssetExecutionContext, run_inputs: RunInputs, publisher: dg.ResourceParam[Publisher]
    ) -> Iterator[Any]:
        run_id = context.run.run_id
        with as_failure():
            window = window_of_run(context)
            keys = {id: dbt_asset_key(node) for id, node in manifest["nodes"].items() if is_model(node)}
            loads = [outcome for outcome in publisher.outcomes() if outcome.asset in raw_tables]
            publisher.warehouse.prepare_schemas(schemas_of_models(manifest))
            plan = plan_models(
                project,
                manifest,
                publisher,
                {id for id, key in keys.items() if key in context.selected_asset_keys},
                loads,
                stored_states=publisher.warehouse.read_states(),
                absent=absent,
                force=run_inputs.rebuild_all,
                forced_months=[month.isoformat() for month in window.months()] if window else None,
                run_id=run_id,
            )
            left_out = {keys[id]: model for id, model in plan.left_out.items()}
            for key, model in {**_skipped_with(left_out, context), **left_out}.items():
                context.log_event(metadata.not_built(key, "skipped", model.reason, model.is_optional))
            build = DbtBuild(context, project, manifest, translator, publisher, months, window)
            events = build.carry_out(plan)
            publisher.interrupted_steps.callback(events.close)
            yield from events
            refuse_left_out(loads, plan.left_out)
            # Another process may have parsed an edited project meanwhile, which this run did not build.
            if plan.is_whole and manifest_path.read_bytes() == content:
                settle_deleted(
                    manifest,
                    publisher.artifacts,
                    publisher.warehouse,
                    drop=run_inputs.drop_deleted,
                    warn=context.log.warning,
                )
                something_built = any(decision.build for decision in plan.decisions)
                accounts = project.runs / "run_results.json" if something_built else None
                keep_manifest(publisher.artifacts, manifest_path, accounts, run_id)

    return transformation


def _skipped_with(
    left_out: Mapping[dg.AssetKey, LeftOut], context: dg.AssetExecutionContext
) -> Mapping[dg.AssetKey, LeftOut]:
    """Return the assets of later steps that Dagster skips, because they read a model that is left out.

    Where a run fails without the models, these steps are not reached.
    """
    layer, skipped = context.job_def.asset_layer, dict[dg.AssetKey, LeftOut]()
    waiting = [(key, model) for key, model in left_out.items() if model.is_optional]
    while waiting:
        key, model = waiting.pop()
        children = layer.get(key).child_keys & layer.selected_asset_keys
        for child in children - context.selected_asset_keys - skipped.keys():
            skipped[child] = model
            waiting.append((child, model))
    return skipped
