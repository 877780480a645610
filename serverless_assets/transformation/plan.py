"""What a run does about the models, and why: one decision, for the run itself and for `serverless plan`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modal_forecast.report.formats import counted
from serverless_assets.errors import UserError
from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.ingestion.fetch_result import failure_sentence
from serverless_assets.names import MAIN_JOB, NAMES_IN_A_LINE, name_some
from serverless_assets.publishing.outcome import AssetOutcome
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.transformation.data_tests import decide_tests
from serverless_assets.transformation.decide_models import decide_models
from serverless_assets.transformation.manifest import TargetSchema, has_relation, is_model, relation_name
from serverless_assets.transformation.project import Project
from serverless_assets.transformation.rebuild_rules import BuildDecision, DataTest


class LeftOutError(UserError):
    """Raw tables are missing that the models of a run need."""


@dataclass(frozen=True)
class LeftOut:
    """A model that is left out, and what is wrong with each raw table that it lacks.

    If all of them are optional, the run succeeds without the model.
    """

    causes: Sequence[str]
    is_optional: bool

    @property
    def reason(self) -> str:
        """Why the run does not build it."""
        return f"skipped: {'; '.join(self.causes)}"


@dataclass(frozen=True)
class ModelPlan:
    """The models that a run leaves out, by dbt's unique id, and what becomes of the others and of tests.

    `source_tests` are the data tests of sources that no model reads: those of a run that `is_whole`, which is
    about every model that has a relation.
    """

    left_out: Mapping[str, LeftOut]
    decisions: Sequence[BuildDecision]
    source_tests: Sequence[DataTest]
    is_whole: bool

    def __str__(self) -> str:
        """How many models are built and reused, and which for each reason."""
        built = sum(decision.build for decision in self.decisions)
        names: dict[tuple[str, str], list[str]] = {}
        for decision in self.decisions:
            months = f" {counted(len(decision.months), 'month')} of" if decision.months is not None else ""
            verb = f"build{months}" if decision.build else "reuse"
            names.setdefault((verb, decision.reason), []).append(decision.node.name)
        return "\n".join(
            [
                f"{counted(built, 'model')} to build, {len(self.decisions) - built} to reuse",
                *(f"{verb} {name_some(some, NAMES_IN_A_LINE)}: {why}" for (verb, why), some in names.items()),
            ]
        )


def plan_models(
    project: Project,
    manifest: Mapping[str, Any],
    publisher: Publisher,
    selected: Collection[str],
    loads: Iterable[AssetOutcome],
    *,
    stored_states: Mapping[str, Mapping[str, Any]],
    absent: Collection[str] = (),
    force: bool = False,
    forced_months: Collection[str] | None = None,
    run_id: str = "",
) -> ModelPlan:
    """Decide on the `selected` models, by dbt's unique ids.

    Args:
        loads: what became of the raw tables in this run.
        stored_states: those of the relations of the target's schema.
        absent: the raw tables that the source lacks as it stands in for another.
        force, forced_months, run_id: as for `decide_builds`.

    Raises:
        PlanningError: a query `restated_months` reads something that there is not.
        WarehouseError: the warehouse cannot be asked.
    """
    missing = _models_left_out(manifest, project.target_schema, stored_states, loads, absent)
    left_out = {id: model for id, model in missing.items() if id in selected}
    decisions = decide_models(
        project,
        manifest,
        publisher.warehouse,
        publisher.artifacts,
        {*selected} - left_out.keys(),
        stored_states=stored_states,
        force=force,
        forced_months=forced_months,
        run_id=run_id,
    )
    decided = {decision.node.id for decision in decisions}
    is_whole = all(
        id in decided or id in left_out for id, node in manifest["nodes"].items() if has_relation(node)
    )
    source_tests = decide_tests(project, manifest, stored_states) if is_whole else []
    return ModelPlan(left_out, decisions, source_tests, is_whole)


def _models_left_out(
    manifest: Mapping[str, Any],
    target: TargetSchema,
    relations: Collection[str],
    loads: Iterable[AssetOutcome],
    absent: Collection[str],
) -> Mapping[str, LeftOut]:
    """Return the models that read a raw table that is missing, directly or not, by dbt's unique id.

    Args:
        target: the schema in which raw tables are loaded. Those of other schemas are not judged.
        relations: the names of the relations that the target's schema has.
        loads: what one holds that failed is out of date; one that was left out as optional is so for its
            models, too.
        absent: these are optional.
    """
    by_name = {outcome.asset: outcome for outcome in loads}
    failed = {name for name, outcome in by_name.items() if outcome.status == "failed"}
    optional = {name for name, outcome in by_name.items() if outcome.optional} | {*absent}
    missing: dict[str, str] = {}
    required = set[str]()
    for id, source in manifest["sources"].items():
        name = relation_name(source, target)
        if is_raw_table(source) and (name in failed or (name not in relations and "." not in name)):
            missing[id] = f"upstream {name} failed" if name in failed else f"{name} is not in the warehouse"
            if name in failed or not (name in optional or source["config"]["meta"].get("optional")):
                required.add(id)
    tables: dict[str, list[str]] = {}
    for table in missing:
        for model in _descendants(manifest, table):
            tables.setdefault(model, []).append(table)
    return {
        model: LeftOut([missing[table] for table in lacks], required.isdisjoint(lacks))
        for model, lacks in tables.items()
    }


def refuse_left_out(loads: Iterable[AssetOutcome], left_out: Mapping[str, LeftOut]) -> None:
    """Raise `LeftOutError` if a raw table failed in this run, or a model lacks one that is not optional.

    Args:
        loads: what became of the raw tables in this run.
        left_out: the models that the run left out, by dbt's unique id.
    """
    failed = [outcome.reason for outcome in loads if outcome.status == "failed"]
    if failed:
        raise LeftOutError(failure_sentence(failed))
    required = {id: model.causes for id, model in left_out.items() if not model.is_optional}
    if required:
        # Several models may lack the same table.
        causes = dict.fromkeys(cause for causes in required.values() for cause in causes)
        names = [id.split(".", 2)[2] for id in required]
        raise LeftOutError(
            f"{name_some([*causes], NAMES_IN_A_LINE, '; ')}. Left out for that: "
            f"{name_some(names, NAMES_IN_A_LINE)}. Load it with `serverless run`, or the job {MAIN_JOB}."
        )


def _descendants(manifest: Mapping[str, Any], id: str) -> Collection[str]:
    """Return the ids of all models that are made from a node and have a relation."""
    models: dict[str, None] = {}
    waiting = [id]
    while waiting:
        for child in manifest["child_map"].get(waiting.pop(), ()):
            if child in manifest["nodes"] and is_model(manifest["nodes"][child]) and child not in models:
                models[child] = None
                waiting.append(child)
    return [id for id in models if has_relation(manifest["nodes"][id])]
