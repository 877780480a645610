"""Plan with what the warehouse says: the thin shell around `plan`."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serverless_assets.transformation.fingerprints import Node, nodes
from serverless_assets.transformation.plan import Decision, State, plan
from serverless_assets.warehouse import Warehouse


@dataclass(frozen=True)
class Planning:
    """The models of a manifest, the warehouse that they are built in, and what dbt is run with."""

    manifest: Mapping[str, Any]
    warehouse: Warehouse
    variables: Mapping[str, Any]
    environ: Mapping[str, str]

    def decide(
        self,
        selected: Collection[str] | None,
        *,
        notes: Mapping[str, Mapping[str, Any]] | None = None,
        known: Callable[[], Collection[str]] = set,
        force: bool = False,
        run_id: str = "",
    ) -> Sequence[Decision]:
        """What to do about each of the `selected` models, given by name; None means all.

        `notes` are those of the warehouse, unless given. `known` gives the names of models that were there
        once; it is asked if one is not there.
        """
        models = nodes(self.manifest, self.variables, {**os.environ, **self.environ})
        notes = self.warehouse.notes() if notes is None else notes
        found = {name: State.from_note(note) for name, note in notes.items()}
        were_there = known() if any(model.name not in found for model in models) else ()

        def decide(restated: Mapping[str, Collection[str]]) -> Sequence[Decision]:
            return plan(
                models,
                found,
                selected=selected,
                known=were_there,
                force=force,
                restated=restated,
                run_id=run_id,
            )

        decisions = decide({})
        restated = self._restated(decisions, found)
        return decide(restated) if restated else decisions

    def _restated(
        self, decisions: Iterable[Decision], found: Mapping[str, State]
    ) -> Mapping[str, Collection[str]]:
        """Months that a model built by months has to build too, by its own query (meta: restated_months)."""
        queries = {d.node.name: self._query(d.node) for d in decisions if d.months is not None}
        return {name: self._months(query, found) for name, query in queries.items() if query}

    def _query(self, node: Node) -> str | None:
        query = self.manifest["nodes"][node.id]["config"].get("meta", {}).get("restated_months")
        return str(query) if query else None

    def _months(self, query: str, found: Mapping[str, State]) -> Collection[str]:
        statement = query.format_map({name: self.warehouse.relation(name) for name in found})
        (column,) = self.warehouse.query(statement).columns
        return {f"{day:%Y-%m}-01" for day in column.to_pylist()}
