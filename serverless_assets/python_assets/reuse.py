"""Python assets with the IO manager `pandas`: reused while their code and what they read are the same."""

import ast
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import dagster as dg

import serverless_assets.defs
from serverless_assets import metadata
from serverless_assets.dagster_internals import Call, with_compute
from serverless_assets.failures import as_failure
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.hashing import digest, json_digest
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.python_assets.pandas_tables import read_frame, read_state, store_frame
from serverless_assets.run_inputs import RunInputs
from serverless_assets.transformation.rebuild_rules import reason_to_build
from serverless_assets.transformation.relation_states import State
from serverless_assets.warehouse import Warehouse

PANDAS = "pandas"
UNCHANGED = "unchanged: same code and inputs"
# Database, schema and name, as dbt has them; empty ones are those of the warehouse.
Relation = tuple[str, str, str]


@dataclass(frozen=True)
class FrameAsset:
    """An asset whose frame is stored by the IO manager `pandas`.

    inputs: the relation of each asset that it reads. code: a hash of its code. always: why it is computed in
    every run, as it may depend on more than code and inputs; empty if it is not.
    """

    name: str
    table: str
    inputs: Mapping[str, Relation]
    code: str
    always: str


def relations(
    manifest: Mapping[str, Any], forecasts: Iterable[ForecastDeclaration]
) -> Mapping[str, Relation]:
    """Return the relation of each asset whose table may have another name, or be in another schema."""
    # dagster-dbt takes a while to import, and commands that ask for no asset do not need it.
    from serverless_assets.transformation.assets import asset_names

    models: dict[str, Relation] = {}
    for id, asset in asset_names(manifest).items():
        node = manifest["nodes"][id]
        models[asset] = (node["database"] or "", node["schema"], node.get("alias") or node["name"])
    tables = {asset: table for forecast in forecasts for asset, table in forecast.tables.items()}
    return {**models, **{asset: ("", "", table) for asset, table in tables.items()}}


def frame_asset(definition: dg.AssetsDefinition, relations: Mapping[str, Relation]) -> FrameAsset | None:
    """Return what decides on an asset; None if it is not one frame of the IO manager `pandas`."""
    op = definition.node_def
    if not isinstance(op, dg.OpDefinition) or [out.io_manager_key for out in op.outs.values()] != [PANDAS]:
        return None
    decorated: Any = op.compute_fn
    function = inspect.unwrap(decorated.decorated_fn)
    if definition.partitions_def or inspect.iscoroutinefunction(function):
        return None
    [spec] = definition.specs
    names = {key.to_user_string(): key.path[-1] for key in definition.keys_by_input_name.values()}
    always = ""
    if spec.metadata.get("reuse") is False:
        always = "its metadata has reuse: False"
    elif decorated.has_config_arg():
        always = "it takes config"
    elif not spec.code_version and (resources := op.required_resource_keys - {PANDAS}):
        always = f"it uses {', '.join(sorted(resources))}, and has no code_version"
    elif not spec.code_version and not names:
        always = "it reads no other asset, and has no code_version"
    return FrameAsset(
        name=spec.key.to_user_string(),
        table=spec.key.path[-1],
        inputs={name: relations.get(name, ("", "", table)) for name, table in names.items()},
        code=digest(spec.code_version) if spec.code_version else code_hash(function.__module__),
        always=f"computed in every run: {always}" if always else "",
    )


def frame_assets(
    assets: Iterable[object], manifest: Mapping[str, Any], forecasts: Iterable[ForecastDeclaration]
) -> Sequence[FrameAsset]:
    """Return those of the assets whose frames the IO manager `pandas` stores, each after those it reads."""
    there = relations(manifest, forecasts)
    definitions = (asset for asset in assets if isinstance(asset, dg.AssetsDefinition))
    by_name = {frame.name: frame for definition in definitions if (frame := frame_asset(definition, there))}
    order = TopologicalSorter({name: frame.inputs for name, frame in by_name.items()}).static_order()
    return [by_name[name] for name in order if name in by_name]


def code_hash(module: str) -> str:
    """Return a hash of the source of a module, and of those in the defs folder that it imports."""
    sources: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = getattr(sys.modules.get(name), "__file__", None)
        is_ours = name == module or (
            file and Path(file).is_relative_to(Path(serverless_assets.defs.__path__[0]))
        )
        if name in sources or not file or not is_ours:
            continue
        sources[name] = Path(file).read_text()
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                relative = "." * node.level + (node.module or "")
                imported = importlib.util.resolve_name(relative, name.rpartition(".")[0])
                waiting += [imported, *(f"{imported}.{alias.name}" for alias in node.names)]
    return json_digest(sources)


def decide_frame(
    frame: FrameAsset, warehouse: Warehouse, force: bool, run_id: str = ""
) -> tuple[State, str | None]:
    """Decide whether to compute a frame, by the rules of models.

    Returns:
        What its table holds then, without the rows' version; and the reason. None reuses the table.
    """
    inputs = {
        name: State.from_json(warehouse.in_schema(database, schema).read_state(table))
        for name, (database, schema, table) in frame.inputs.items()
    }
    versions = {name: state.version for name, state in inputs.items()}
    # Never the same as anything, if it is not known what an input holds.
    made_from = json_digest([frame.code, versions]) if all(versions.values()) else f"unknown {run_id}"
    state = State("", None, {"code": frame.code}, versions, run_id, inputs=made_from)
    reason = reason_to_build(
        state, read_state(warehouse, frame.table), inputs, decided=inputs, is_known=False, force=force
    )
    return state, reason or frame.always or None


def reuse_unchanged(definition: dg.AssetsDefinition, frame: FrameAsset) -> dg.AssetsDefinition:
    """Return the asset: its inputs are read and its function is called only if there is a reason to."""
    op, keys = definition.op, definition.keys_by_input_name
    read = [input for input in op.input_defs if not input.dagster_type.is_nothing]

    def compute(context: dg.AssetExecutionContext, call: Call) -> Iterator[Any]:
        publisher: Publisher = context.resources.publisher
        run_inputs: RunInputs = context.resources.run_inputs
        warehouse, force = publisher.warehouse, run_inputs.checked().rebuild_all
        with as_failure(), warehouse.connected():
            state, reason = decide_frame(frame, warehouse, force, context.run.run_id)
            last = read_state(warehouse, frame.table) or State()
        if reason is None:
            reused = metadata.outcome("reused", UNCHANGED, rows=last.rows)
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(last.version),
                metadata={**reused, metadata.BUILT_BY: last.built_by},
            )
            return
        frames = {}
        with as_failure():
            for input in read:
                database, schema, table = frame.inputs[keys[input.name].to_user_string()]
                there = warehouse.in_schema(database, schema)
                frames[input.name] = read_frame(there, table, input.metadata, input.dagster_type)
        for event in call(frames):
            if not isinstance(event, dg.Output | dg.MaterializeResult):
                yield event
                continue
            with as_failure(), warehouse.connected():
                stored = store_frame(warehouse, frame.table, event.value, state, reason, force)
                version = (read_state(warehouse, frame.table) or State()).version
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(version), metadata={**(event.metadata or {}), **stored}
            )

    return with_compute(definition, compute, {"publisher", "run_inputs"})
