"""Decide which models of a manifest are rebuilt, with what the warehouse says of their relations."""

import json
import logging
import shutil
import string
from collections.abc import Collection, Mapping, Sequence, Set
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from serverless_assets.artifacts import Artifacts
from serverless_assets.errors import UserError
from serverless_assets.hashing import file_digest, json_digest
from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.transformation import dbt_runner
from serverless_assets.transformation.data_tests import with_tests
from serverless_assets.transformation.fingerprints import ProjectCode
from serverless_assets.transformation.green_build import known_models
from serverless_assets.transformation.invocation import months_variable, selection
from serverless_assets.transformation.manifest import TargetSchema, relation_name
from serverless_assets.transformation.nodes import EPHEMERAL, Materialization, Node
from serverless_assets.transformation.project import Project
from serverless_assets.transformation.rebuild_rules import BuildDecision, ReadQuery, decide_builds
from serverless_assets.transformation.relation_states import QueryColumns, State, read_states
from serverless_assets.warehouse import Warehouse, WarehouseError

log = logging.getLogger(__name__)


class PlanningError(UserError):
    """The dbt project declares something that cannot be planned."""


def decide_models(
    project: Project,
    manifest: Mapping[str, Any],
    warehouse: Warehouse,
    artifacts: Artifacts | None = None,
    selected: Collection[str] | None = None,
    *,
    stored_states: Mapping[str, Mapping[str, Any]] | None = None,
    force: bool = False,
    forced_months: Collection[str] | None = None,
    run_id: str = "",
) -> Sequence[BuildDecision]:
    """Decide on each of the `selected` models, parents first.

    Args:
        artifacts: where the manifest of the last green build is kept, which tells a model whose relation is
            missing from a new one.
        selected: dbt's unique ids of the models that the run is about; None means all.
        stored_states: those of the relations of the target's schema, if not to be read from the warehouse.
        force, forced_months, run_id: as for `decide_builds`.

    Raises:
        PlanningError: a query `restated_months` reads something that there is not.
        WarehouseError: the warehouse cannot be asked.
    """
    code = ProjectCode(manifest, project.vars(), project.environ, _large_seeds(manifest))
    models = code.nodes()
    states = _with_sources(
        read_states(warehouse, models, stored_states), models, manifest, warehouse, project.target_schema
    )
    is_missing = any(m.name not in states for m in models if m.kind != Materialization.EPHEMERAL)
    known_ids = known_models(artifacts) if is_missing and artifacts else ()
    decide = partial(
        decide_builds,
        models,
        states,
        selected=None if selected is None else {model.name for model in models if model.id in selected},
        known_models={model.name for model in models if model.id in known_ids},
        force=force,
        forced_months=forced_months,
        run_id=run_id,
        current_month=f"{datetime.now(UTC):%Y-%m}",
    )
    decisions = decide()
    to_compile = [] if force else models_to_compile(decisions, states)
    if to_compile:
        decide = partial(decide, read_query=_compile(project, manifest, to_compile))
        decisions = decide()
    restated = _months_to_restate(decisions, models, states, manifest, warehouse, project.target_schema)
    if restated:
        decisions = decide(months_to_restate=restated)
    return with_tests(decisions, models, states, manifest, code.test_hashes(), project.target_schema)


def models_to_compile(
    decisions: Sequence[BuildDecision], states: Mapping[str, State]
) -> Sequence[BuildDecision]:
    """Return the models whose queries tell whether some that read them, too, have to be built. Pure.

    Of a model that was edited or dropped it is not known what it reads. What reads it has to be built,
    unless it reads none of the columns that changed.
    """
    unknown: dict[str, BuildDecision] = {}
    is_asked = False
    for decision in decisions:
        node, previous = decision.node, states.get(decision.node.name, State())
        is_below = bool(unknown.keys() & {*node.reads})
        is_unread = not decision.state.columns and bool(node.build_hash)
        if decision.build and (is_below or is_unread):
            unknown[node.name] = decision
            own = {part for part in node.data_hashes.items() if not part[0].startswith(EPHEMERAL)}
            is_edited = not own <= previous.data_hashes.items()
            is_asked = is_asked or (bool(previous.columns) and not is_edited)
    return [*unknown.values()] if is_asked else []


def _compile(project: Project, manifest: Mapping[str, Any], decisions: Sequence[BuildDecision]) -> ReadQuery:
    """Have dbt compile models as for a build of all rows, and return what reads their queries."""
    target, ids = project.target / "decide", {decision.node.id for decision in decisions}
    shutil.rmtree(target / "compiled", ignore_errors=True)
    failed = dbt_runner.invoke(
        ["compile", "--full-refresh", "--indirect-selection", "empty", *selection(ids)],
        project.directory,
        target,
        {**project.variables, "SERVERLESS_MONTHS": ""},
        project.partial_parse,
    )
    if failed:
        # The build reports it for each model.
        log.info(f"Changed models are built with all models that read them, as dbt cannot compile: {failed}")
        return lambda node, columns: {}
    # Imported here, as sqlglot takes long to import and most decisions read no query.
    from serverless_assets.transformation.lineage import CompiledQueries

    queries = CompiledQueries(manifest, project.target_schema, target / "compiled")
    queries_read: dict[str, QueryColumns] = {}

    def read_query(node: Node, columns: Mapping[str, Sequence[str]]) -> QueryColumns:
        key = json_digest([node.id, columns])
        if node.id in ids and key not in queries_read:
            queries_read[key] = queries.read(node, columns)
        return queries_read.get(key, {})

    return read_query


def _with_sources(
    states: Mapping[str, State],
    models: Sequence[Node],
    manifest: Mapping[str, Any],
    warehouse: Warehouse,
    target: TargetSchema,
) -> Mapping[str, State]:
    """Add the states of tables that models read and others write, where the warehouse tells versions."""
    operations = (node["tags"] for node in manifest["nodes"].values() if node["resource_type"] == "operation")
    if any("on-run-start" in tags for tags in operations):
        # A hook before all models may write them, and does not run if nothing is to be built.
        return states
    with_state = {model.name for model in models} | {name for name, state in states.items() if state.version}
    read = {name for model in models for name in model.reads} - with_state
    tables = {
        (str(source["database"] or ""), str(source["schema"]), str(source["identifier"])): name
        for source in manifest["sources"].values()
        if (name := relation_name(source, target)) in read and not is_raw_table(source)
    }
    versions = warehouse.content_versions(tables) if tables else {}
    return {**states, **{tables[table]: State(version) for table, version in versions.items()}}


def _large_seeds(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """A hash of the rows of each seed that dbt hashes by its path alone: those over 1 MiB."""
    seeds = [node for node in manifest["nodes"].values() if node["resource_type"] == "seed"]
    paths = {
        seed["unique_id"]: Path(seed["root_path"] or "") / seed["original_file_path"]
        for seed in seeds
        if seed["checksum"]["name"] == "path"
    }
    return {id: file_digest(path) for id, path in paths.items() if path.is_file()}


def _months_to_restate(
    decisions: Sequence[BuildDecision],
    models: Sequence[Node],
    states: Mapping[str, State],
    manifest: Mapping[str, Any],
    warehouse: Warehouse,
    target: TargetSchema,
) -> Mapping[str, Collection[str] | None]:
    """Months that a model built by months has to build too, by its own query (meta: restated_months).

    None for a model whose query reads what this run has yet to build.
    """
    nodes_by_id, queries = manifest["nodes"], dict[str, str]()
    for decision in decisions:
        query = nodes_by_id[decision.node.id]["config"].get("meta", {}).get("restated_months")
        if query and decision.months is not None:
            queries[decision.node.name] = str(query)
    if not queries:
        return {}
    stale = _stale_relations(decisions, models, states)
    # What a query may name in braces: a model, or else a table of a source; of several, the first.
    entries = {source["name"]: source for source in reversed([*manifest["sources"].values()])}
    with_relation = [model for model in models if model.kind != Materialization.EPHEMERAL]
    entries |= {nodes_by_id[model.id]["name"]: nodes_by_id[model.id] for model in reversed(with_relation)}
    months: dict[str, Collection[str] | None] = {}
    for name, query in queries.items():
        relations, quoted = set[str](), dict[str, str]()
        for field in (field for _, field, _, _ in string.Formatter().parse(query) if field):
            if field not in entries:
                raise PlanningError(
                    f"The query restated_months of {name} reads {{{field}}}, which is no model and no table "
                    "of a source: write the name of one in the braces."
                )
            entry = entries[field]
            there = warehouse.in_schema(entry["database"] or "", entry["schema"])
            quoted[field] = there.quoted_name(entry.get("alias") or entry["identifier"])
            relations.add(relation_name(entry, target))
        if relations & stale - {name}:
            months[name] = None
            continue
        (column,) = warehouse.query(query.format_map(quoted)).columns
        months[name] = {f"{day:%Y-%m}-01" for day in column.to_pylist()}
    return months


def _stale_relations(
    decisions: Sequence[BuildDecision], models: Sequence[Node], states: Mapping[str, State]
) -> Set[str]:
    """The relations that do not hold yet what the models of this run will be built from."""
    stale = {model.name for model in models if model.name not in states}
    built = {decision.node.name for decision in decisions if decision.build}
    for model in models:
        if model.kind == Materialization.VIEW and model.name in states:
            is_edited = states[model.name].data_hashes != model.data_hashes
            is_stale = is_edited or bool(stale & set(model.reads))
        else:
            is_stale = model.name in built
        if is_stale:
            stale.add(model.name)
    return stale


def bytes_to_read(
    project: Project, warehouse: Warehouse, decisions: Sequence[BuildDecision], manifest: Mapping[str, Any]
) -> Mapping[str, int]:
    """The bytes that each model to be built would read, by name, as the warehouse says without reading.

    A model is missing where nothing is charged, and where it reads a relation that there is not yet.
    """
    building = [
        decision for decision in decisions if decision.build and decision.node.kind != Materialization.VIEW
    ]
    if not building or warehouse.bytes_to_read("select 1") is None:
        return {}
    variables = {**project.variables, "SERVERLESS_MONTHS": months_variable(building)}
    target = project.target / "plan"
    if dbt_runner.invoke(
        ["compile", *selection(decision.node.id for decision in building)],
        project.directory,
        target,
        variables,
    ):
        return {}
    compiled = json.loads((target / "manifest.json").read_text())["nodes"]
    sizes = {}
    for decision in building:
        try:
            size = warehouse.bytes_to_read(compiled[decision.node.id]["compiled_code"])
        except WarehouseError:
            continue
        sizes[decision.node.name] = size or 0
    return sizes
