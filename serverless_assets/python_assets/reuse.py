"""Python assets with the IO manager `pandas`: reused while their code and what they read are the same."""

import ast
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import dagster as dg

import serverless_assets.defs
from modal_forecast.code_version import code_hash
from serverless_assets import metadata
from serverless_assets.asset_keys import asset_name
from serverless_assets.dagster_internals import Call, with_compute
from serverless_assets.failures import as_failure
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.hashing import digest, json_digest
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.python_assets.pandas_tables import read_frame, read_state, store_frame
from serverless_assets.run_inputs import RunInputs
from serverless_assets.settings import SettingsError
from serverless_assets.transformation.manifest import asset_names
from serverless_assets.transformation.rebuild_rules import reason_to_build
from serverless_assets.transformation.relation_states import State
from serverless_assets.warehouse import TableName, Warehouse

PANDAS = "pandas"
SAME_FRAME = "unchanged: same code and inputs"


@dataclass(frozen=True)
class FrameAsset:
    """An asset whose frame is stored by the IO manager `pandas`.

    inputs: the relation of each asset that it reads. code: a hash of its code. always: why it is computed in
    every run, as it may depend on more than code and inputs; empty if it is not. optional: whether a project
    without one of the inputs goes without it.
    """

    name: str
    table: str
    inputs: Mapping[str, TableName]
    code: str
    always: str
    optional: bool


def relations(
    manifest: Mapping[str, Any], forecasts: Iterable[ForecastDeclaration]
) -> Mapping[str, TableName]:
    """Return the relation of each asset of the dbt project and the forecasts.

    An empty database or schema is that of the warehouse.
    """
    tables: dict[str, TableName] = {}
    for id, asset in asset_names(manifest).items():
        node = manifest["nodes"][id]
        tables[asset] = (node["database"] or "", node["schema"], node["alias"])
    for source in manifest["sources"].values():
        name = source["identifier"]
        tables[name] = ("", "", name)
        tables[f"{source['source_name']}/{source['name']}"] = (
            source["database"] or "",
            source["schema"],
            name,
        )
    for forecast in forecasts:
        # A report has none, which is as a relation of which nothing is known.
        for asset, table in {**forecast.tables, forecast.report: forecast.report}.items():
            tables[asset] = ("", "", table)
    return tables


def is_frame(definition: dg.AssetsDefinition) -> bool:
    """Whether an asset is one frame, which the IO manager `pandas` stores as a whole."""
    op = definition.node_def
    if not isinstance(op, dg.OpDefinition) or definition.partitions_def:
        return False
    decorated: Any = op.compute_fn
    outputs = [out.io_manager_key for out in op.outs.values()]
    return outputs == [PANDAS] and not inspect.iscoroutinefunction(decorated.decorated_fn)


def frame_asset(definition: dg.AssetsDefinition, relations: Mapping[str, TableName]) -> FrameAsset:
    """Return what decides on an asset that is a frame."""
    op, [spec] = definition.op, definition.specs
    decorated: Any = op.compute_fn
    function = inspect.unwrap(decorated.decorated_fn)
    names = {asset_name(key): key.path[-1] for key in definition.keys_by_input_name.values()}
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
        name=asset_name(spec.key),
        table=spec.key.path[-1],
        inputs={name: relations.get(name, ("", "", table)) for name, table in names.items()},
        code=digest(spec.code_version) if spec.code_version else hash_modules(function.__module__),
        always=f"computed in every run: {always}" if always else "",
        optional=bool(spec.metadata.get("optional")),
    )


def frame_assets(
    assets: Iterable[object], manifest: Mapping[str, Any], forecasts: Iterable[ForecastDeclaration]
) -> Sequence[FrameAsset]:
    """Return those of the declared assets whose frames the IO manager `pandas` stores, in order of a run.

    Raises:
        SettingsError: one reads an asset that there is not, and is not optional.
    """
    there = relations(manifest, forecasts)
    assets = list(assets)
    definitions = [asset for asset in assets if isinstance(asset, dg.AssetsDefinition)]
    declared = [frame_asset(definition, there) for definition in definitions if is_frame(definition)]
    frames = {frame.name: frame for frame in declared}
    keys = [key for definition in definitions for key in definition.keys]
    keys += [asset.key for asset in assets if isinstance(asset, dg.AssetSpec)]
    readable = {*there, *map(asset_name, keys)} - frames.keys()
    present = []
    for name in TopologicalSorter({name: frame.inputs for name, frame in frames.items()}).static_order():
        if name not in frames:
            continue
        missing = [input for input in frames[name].inputs if input not in readable]
        if not missing:
            readable.add(name)
            present.append(frames[name])
        elif not frames[name].optional:
            close = get_close_matches(missing[0], readable, 1)
            raise SettingsError(
                f"The Python asset {name} reads {missing[0]!r}, which no asset of the project is called"
                f'{f": did you mean {close[0]}?" if close else "."} With metadata={{"optional": True}} it is '
                "left out of a project without that."
            )
    return present


def hash_modules(module: str) -> str:
    """Return a hash of the code of a module, and of those in the defs folder that it imports."""
    files: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = getattr(sys.modules.get(name), "__file__", None)
        is_ours = name == module or (
            file and Path(file).is_relative_to(Path(serverless_assets.defs.__path__[0]))
        )
        if name in files or not file or not is_ours:
            continue
        files[name] = Path(file)
        for node in ast.walk(ast.parse(files[name].read_text())):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                relative = "." * node.level + (node.module or "")
                imported = importlib.util.resolve_name(relative, name.rpartition(".")[0])
                waiting += [imported, *(f"{imported}.{alias.name}" for alias in node.names)]
    return code_hash(files)


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


def without_left_out(assets: Iterable[object], frames: Sequence[FrameAsset]) -> Iterator[dg.AssetsDefinition]:
    """Yield the declared assets that runs write, but for frames that the project goes without."""
    present = {frame.name for frame in frames}
    for asset in assets:
        if isinstance(asset, dg.AssetsDefinition) and (
            not is_frame(asset) or asset_name(asset.key) in present
        ):
            yield asset


def reuse_frames(
    assets: Iterable[dg.AssetsDefinition], frames: Sequence[FrameAsset], pool: str
) -> list[dg.AssetsDefinition]:
    """Return the assets, of which those that are frames are computed only if there is a reason to."""
    by_name = {frame.name: frame for frame in frames}
    return [
        reuse_unchanged(asset, by_name[asset_name(asset.key)], pool) if is_frame(asset) else asset
        for asset in assets
    ]


def reuse_unchanged(definition: dg.AssetsDefinition, frame: FrameAsset, pool: str) -> dg.AssetsDefinition:
    """Return the asset: its inputs are read and its function is called only if there is a reason to.

    pool: of the runs that write to the warehouse, as it does; one of its own goes before.
    """
    op, keys = definition.op, definition.keys_by_input_name
    read = [input for input in op.input_defs if not input.dagster_type.is_nothing]

    def compute(context: dg.AssetExecutionContext, call: Call) -> Iterator[Any]:
        publisher: Publisher = context.resources.publisher
        run_inputs: RunInputs = context.resources.run_inputs
        warehouse, force = publisher.warehouse, run_inputs.rebuild_all
        with as_failure(), warehouse.connected():
            state, reason = decide_frame(frame, warehouse, force, context.run.run_id)
            last = read_state(warehouse, frame.table) or State()
        if reason is None:
            reused = metadata.outcome("reused", SAME_FRAME, rows=last.rows)
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(last.version),
                metadata={**reused, metadata.BUILT_BY: last.built_by},
            )
            return
        frames = {}
        with as_failure():
            for input in read:
                database, schema, table = frame.inputs[asset_name(keys[input.name])]
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

    return with_compute(definition, compute, {"publisher", "run_inputs"}, pool)
