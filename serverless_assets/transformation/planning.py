"""Plan with what the warehouse says: the states of relations, months to restate, and bytes to read."""

import json
import os
import string
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from serverless_assets.errors import UserError
from serverless_assets.hashing import file_digest
from serverless_assets.transformation import dbt_runner
from serverless_assets.transformation.fingerprints import Materialization, Node, nodes, relation_name
from serverless_assets.transformation.invocation import full_name, months_variable
from serverless_assets.transformation.plan import BuildDecision, State, plan
from serverless_assets.transformation.project import Project
from serverless_assets.transformation.state import states_of, warehouse_of
from serverless_assets.warehouse import Warehouse, WarehouseError

States = Mapping[str, Mapping[str, Any]]


class PlanningError(UserError):
    """The dbt project declares something that cannot be planned."""


@dataclass(frozen=True)
class Planning:
    """The models of a manifest, the warehouse that they are built in, and what dbt is run with."""

    manifest: Mapping[str, Any]
    warehouse: Warehouse
    variables: Mapping[str, Any]
    environ: Mapping[str, str]

    @cached_property
    def models(self) -> Sequence[Node]:
        """The models, each after its parents."""
        seeds = _large_seeds(self.manifest)
        return nodes(self.manifest, self.variables, {**os.environ, **self.environ}, seeds)

    def decide(
        self,
        selected: Collection[str] | None,
        *,
        states: States | None = None,
        known_models: Callable[[], Collection[str]] = set,
        force: bool = False,
        run_id: str = "",
    ) -> Sequence[BuildDecision]:
        """What to do about each of the `selected` models, given by dbt's unique id; None means all.

        `states` are those of the target's schema, unless they are to be read from the warehouse.
        `known_models` returns the ids of models that the last green build had; it is called only if a
        relation is missing.
        """
        current = {
            name: State.from_json(note)
            for name, note in states_of(self.warehouse, self.models, states).items()
        }
        missing = any(
            model.name not in current for model in self.models if model.kind != Materialization.EPHEMERAL
        )
        were_there = known_models() if missing else ()

        def decide(months_to_restate: Mapping[str, Collection[str] | None]) -> Sequence[BuildDecision]:
            return plan(
                self.models,
                current,
                selected=None if selected is None else {m.name for m in self.models if m.id in selected},
                known_models={model.name for model in self.models if model.id in were_there},
                force=force,
                months_to_restate=months_to_restate,
                run_id=run_id,
                current_month=f"{datetime.now(UTC):%Y-%m}",
            )

        decisions = decide({})
        restated = self._months_to_restate(decisions, current)
        return decide(restated) if restated else decisions

    def _months_to_restate(
        self, decisions: Sequence[BuildDecision], current: Mapping[str, State]
    ) -> Mapping[str, Collection[str] | None]:
        """Months that a model built by months has to build too, by its own query (meta: restated_months)."""
        queries = {d.node.name: self._query(d.node) for d in decisions if d.months is not None}
        stale = self._stale(decisions, current)
        return {name: self._months(query, name, stale) for name, query in queries.items() if query}

    def _query(self, node: Node) -> str | None:
        query = self.manifest["nodes"][node.id]["config"].get("meta", {}).get("restated_months")
        return str(query) if query else None

    def _stale(self, decisions: Iterable[BuildDecision], current: Mapping[str, State]) -> set[str]:
        """The relations that do not hold yet what the models of this run will be built from."""
        stale: set[str] = {model.name for model in self.models if model.name not in current}
        built = {decision.node.name for decision in decisions if decision.build}
        for model in self.models:
            if model.kind == Materialization.VIEW and model.name in current:
                is_stale = current[model.name].data_hashes != model.data_hashes or bool(
                    stale & set(model.reads)
                )
            else:
                is_stale = model.name in built
            if is_stale:
                stale.add(model.name)
        return stale

    def _months(self, query: str, name: str, stale: set[str]) -> Collection[str] | None:
        """The months that a model's query gives; None if it reads what this run has yet to build."""
        fields = {field for _, field, _, _ in string.Formatter().parse(query) if field}
        relations = {field: self._relation(field, name) for field in fields}
        if any(relation in stale - {name} for relation, _ in relations.values()):
            return None
        statement = query.format_map({field: quoted for field, (_, quoted) in relations.items()})
        (column,) = self.warehouse.query(statement).columns
        return {f"{day:%Y-%m}-01" for day in column.to_pylist()}

    def _relation(self, field: str, asking: str) -> tuple[str, str]:
        """The name of the relation that a query calls {field}, and how it is quoted there."""
        for model in self.models:
            if self.manifest["nodes"][model.id]["name"] == field and model.kind != Materialization.EPHEMERAL:
                return model.name, warehouse_of(self.warehouse, model).quoted_name(model.identifier)
        for source in self.manifest["sources"].values():
            if source["name"] == field:
                there = self.warehouse.in_schema(source["database"], source["schema"])
                name = relation_name(source, self.environ.get("DBT_SCHEMA", ""))
                return name, there.quoted_name(source["identifier"])
        raise PlanningError(
            f"The query restated_months of {asking} reads {{{field}}}, which is no model and no table of a "
            "source: write the name of one in the braces."
        )


def _large_seeds(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """A hash of the rows of each seed that dbt hashes by its path alone: those over 1 MiB."""
    seeds = [node for node in manifest["nodes"].values() if node["resource_type"] == "seed"]
    paths = {
        seed["unique_id"]: Path(seed["root_path"] or "") / seed["original_file_path"]
        for seed in seeds
        if seed["checksum"]["name"] == "path"
    }
    return {id: file_digest(path) for id, path in paths.items() if path.is_file()}


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
    select = ["--select", *(full_name(decision, manifest) for decision in building)]
    if dbt_runner.invoke(["compile", *select], project.directory, target, variables):
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
