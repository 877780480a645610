"""The models that a run leaves out, as a raw table that they read is missing. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from serverless_assets.errors import UserError
from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.ingestion.fetch_result import failure_sentence
from serverless_assets.names import MAIN_JOB, NAMES_IN_A_LINE, name_some
from serverless_assets.publishing.outcome import AssetOutcome
from serverless_assets.transformation.manifest import is_model, relation_name

SKIPPED_PREFIX = "skipped: "


class LeftOutError(UserError):
    """Raw tables are missing that the models of a run need."""


@dataclass(frozen=True)
class LeftOut:
    """Why a model is left out; if all the tables that it lacks are optional, the run succeeds without it."""

    reason: str
    is_optional: bool


def models_left_out(
    manifest: Mapping[str, Any],
    schema: str,
    relations: Collection[str],
    outcomes: Iterable[AssetOutcome] = (),
    absent: Collection[str] = (),
) -> Mapping[str, LeftOut]:
    """Return the models that read a raw table that is missing, directly or not, by dbt's unique id.

    Args:
        schema: that of the target, in which raw tables are loaded. Those of other schemas are not judged.
        relations: the names of the relations that the target's schema has.
        outcomes: what became of the raw tables in this run. What one holds that failed is out of date; one
            that was left out as optional is so for its models, too.
        absent: the raw tables that the source lacks as it stands in for another: they are optional.
    """
    by_name = {outcome.asset: outcome for outcome in outcomes}
    failed = {name for name, outcome in by_name.items() if outcome.status == "failed"}
    optional = {name for name, outcome in by_name.items() if outcome.optional} | {*absent}
    missing: dict[str, str] = {}
    required = set[str]()
    for id, source in manifest["sources"].items():
        name = relation_name(source, schema)
        if is_raw_table(source) and (name in failed or (name not in relations and "." not in name)):
            missing[id] = f"upstream {name} failed" if name in failed else f"{name} is not in the warehouse"
            if name in failed or not (name in optional or source["config"]["meta"].get("optional")):
                required.add(id)
    tables: dict[str, list[str]] = {}
    for table in missing:
        for model in _descendants(manifest, table):
            tables.setdefault(model, []).append(table)
    return {
        model: LeftOut(
            f"{SKIPPED_PREFIX}{'; '.join(map(missing.__getitem__, lacks))}", not required & set(lacks)
        )
        for model, lacks in tables.items()
    }


def refuse_left_out(outcomes: Iterable[AssetOutcome], left_out: Mapping[str, LeftOut]) -> None:
    """Raise `LeftOutError` if a raw table failed in this run, or a model lacks one that is not optional.

    Args:
        outcomes: what became of the raw tables in this run.
        left_out: the models that the run left out, by dbt's unique id.
    """
    failed = [outcome.reason for outcome in outcomes if outcome.status == "failed"]
    if failed:
        raise LeftOutError(failure_sentence(failed))
    required = {id: model.reason for id, model in left_out.items() if not model.is_optional}
    if required:
        # Models lack some of the same tables.
        reasons = dict.fromkeys(
            clause
            for reason in required.values()
            for clause in reason.removeprefix(SKIPPED_PREFIX).split("; ")
        )
        names = [id.split(".", 2)[2] for id in required]
        raise LeftOutError(
            f"{name_some([*reasons], NAMES_IN_A_LINE, '; ')}. Left out for that: "
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
    return [id for id in models if manifest["nodes"][id]["config"].get("materialized") != "ephemeral"]
