"""The releases of BigQuery: the record of each, and copies by which people can return to it.

A copy of a table is a clone, which stores nothing but what the table lost since; a copy of a view is a view.
Copies lie in the work datasets and are named by the state of the relation, so that a relation that did not
change has one copy for all releases.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from google.cloud import bigquery

from serverless_assets.hashing import json_digest
from serverless_assets.warehouse import WarehouseError
from serverless_assets.warehouse import bigquery_sql as sql
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from serverless_assets.warehouse.bigquery_dataset import CALLS_AT_ONCE, KEPT_PREFIX
from serverless_assets.warehouse.bigquery_layout import layout_of
from serverless_assets.warehouse.bigquery_release import (
    RELEASES,
    Built,
    Change,
    Steps,
    carry_out,
    clone_statement,
    drop_statement,
    options_clause,
    parents_first,
)

# By work dataset, with its project if that is another one, the name of the copy of each relation.
Kept = Mapping[str, Mapping[str, str]]
# Set once a work dataset has what an earlier version of this project kept beside what people read.
COMPLETE = "Where runs build and test. A run that succeeded publishes from here: read the other dataset."
# A year's, if one is published every few hours; a publish reads some 4 kB of each.
RELEASES_RECORDED = 1_000
SCHEMA = (
    bigquery.SchemaField("run_id", "STRING", description="The run that made the release."),
    bigquery.SchemaField("began_at", "TIMESTAMP", description="When its first relation was replaced."),
    bigquery.SchemaField("published_at", "TIMESTAMP", description="Since when all of it is there."),
    bigquery.SchemaField("is_rollback", "BOOL", description="Whether an earlier release was returned to."),
    bigquery.SchemaField("changed", "STRING", description="As JSON: the relations and files it changed."),
    bigquery.SchemaField("contents", "STRING", description="As JSON: the copies of all that it holds."),
)


def adopt(work: BigQueryWarehouse) -> Sequence[str]:
    """Continue from what an earlier version of this project built in what is now read by people.

    Its tables, with their states, are cloned into the work dataset; their names are returned. Views are built
    anew.

    Raises:
        WarehouseError: a table cannot be cloned.
    """
    read, dataset = work.published(), work.prepare()
    if dataset.description == COMPLETE:
        return []
    adopted = []
    built = work.relations()
    with work.jobs() as jobs:
        for name, table in read.relations().items():
            if table.table_type != "VIEW" and sql.state_in(table.description) and name not in built:
                options = options_clause(
                    sql.words_in(table.description), sql.state_in(table.description), {}, table
                )
                jobs.run(clone_statement(work.quoted_name(name), read.quoted_name(name), options))
                adopted.append(name)
        dataset.description = COMPLETE
        jobs.client.update_dataset(dataset, ["description"], **jobs.call)
    return adopted


def record_release(
    read: BigQueryWarehouse,
    run_id: str,
    began: datetime,
    changed: Collection[str],
    contents: Mapping[str, Any],
    is_rollback: bool = False,
) -> None:
    """Record that all of a run's relations and files are what people read."""
    table = bigquery.Table(read.reference(RELEASES), schema=SCHEMA)
    with read.jobs() as jobs:
        existing = jobs.client.create_table(table, exists_ok=True, **jobs.call)
        if len(existing.schema) < len(SCHEMA):
            # Earlier versions recorded less.
            existing.schema = SCHEMA
            jobs.client.update_table(existing, ["schema"], **jobs.call)
        texts = [sql.literal(json.dumps(value)) for value in (sorted(changed), dict(contents))]
        jobs.run(
            f"insert into {read.quoted_name(RELEASES)} ({', '.join(field.name for field in SCHEMA)}) values "
            f"({sql.literal(run_id)}, {sql.timestamp(began)}, "
            f"current_timestamp(), {is_rollback}, {texts[0]}, {texts[1]})"
        )
        jobs.describe(table, f"Which run is read since when: now run {run_id}.")


def read_releases(read: BigQueryWarehouse) -> Sequence[Mapping[str, Any]]:
    """The rows of the record, the newest first, with their JSON read. That costs nothing."""
    with read.jobs() as jobs:
        table = jobs.table(read.reference(RELEASES))
        rows = [dict(row) for row in jobs.client.list_rows(table, **jobs.call)] if table else []
    for row in rows:
        row["changed"], row["contents"] = (
            json.loads(row.get(name) or default) for name, default in (("changed", "[]"), ("contents", "{}"))
        )
    return sorted(rows, key=lambda row: row["published_at"], reverse=True)


def shorten_record(read: BigQueryWarehouse, releases: Sequence[Mapping[str, Any]]) -> None:
    """Delete the older ones of the recorded releases, given with the newest first, once there are many:
    every publish reads all of them."""
    if len(releases) >= 2 * RELEASES_RECORDED:
        oldest = releases[RELEASES_RECORDED - 1]["published_at"]
        with read.jobs() as jobs:
            jobs.run(f"delete from {read.quoted_name(RELEASES)} where published_at < {sql.timestamp(oldest)}")


def is_recorded(live: Iterable[Mapping[str, bigquery.Table]]) -> bool:
    """Whether the last release is on record: no relation of a run was replaced after that was written.

    live: what people read, by name in each dataset.
    """
    relations = [(name, relation) for in_dataset in live for name, relation in in_dataset.items()]
    recorded = [relation.modified for name, relation in relations if name == RELEASES]
    replaced = [relation.modified for _, relation in relations if sql.state_in(relation.description)]
    return not replaced or (bool(recorded) and max(replaced) <= max(recorded))


def keep(work: BigQueryWarehouse, built_relations: Built) -> Kept:
    """Copy each built relation that has no copy yet, and return the copies of all.

    Raises:
        WarehouseError: one cannot be copied.
    """
    kept: dict[str, Mapping[str, str]] = {}
    new: dict[str, tuple[BigQueryWarehouse, str]] = {}
    changes = []
    for there, built in built_relations.items():
        states = {name: sql.state_in(relation.description) for name, relation in built.items()}
        copies = {
            name: f"{KEPT_PREFIX}{name}_{json_digest([built[name].table_type == 'VIEW', state])}"
            for name, state in states.items()
            if state
        }
        existing = there.kept_names()
        for name, copy in copies.items():
            if copy not in existing:
                change = _copy(work, there, built[name], copy)
                changes.append(change)
                new[change.name] = there, copy
        kept[_name(work, there)] = copies
    errors = carry_out(work, [changes])
    for there, copy in map(new.__getitem__, errors):
        # What was not made as a whole is not what its name says.
        with suppress(WarehouseError):
            there.drop_relation(copy)
    refuse_failed(errors)
    return kept


def steps_to_restore(work: BigQueryWarehouse, built_relations: Built, kept: Kept) -> Steps:
    """What puts the copies in the place of what runs have built since, and drops what has none.

    Raises:
        WarehouseError: a copy is not there.
    """
    tables: list[Change] = []
    views: dict[str, Change] = {}
    dropped: list[Change] = []
    for there, built in built_relations.items():
        copies = _read(there, kept.get(_name(work, there), {}))
        for name, copy in copies.items():
            before = built.get(name)
            if before is not None and sql.state_in(before.description) == sql.state_in(copy.description):
                continue
            is_replaced = before is None or (before.table_type == "VIEW", layout_of(before)) == (
                copy.table_type == "VIEW",
                layout_of(copy),
            )
            change = _copy(work, there, copy, name)
            drop = [] if is_replaced or before is None else [drop_statement(before, there)]
            change = replace(change, statements=[*drop, *change.statements])
            if copy.table_type == "VIEW":
                views[there.quoted_name(name)] = change
            else:
                tables.append(change)
        dropped += [
            Change(f"{_name(work, there)}.{name}", [drop_statement(relation, there)])
            for name, relation in built.items()
            if sql.state_in(relation.description) and name not in copies
        ]
    return [tables, *parents_first(views), dropped]


def forget(work: BigQueryWarehouse, built: Iterable[BigQueryWarehouse], kept: Iterable[Kept]) -> None:
    """Delete the copies in the built datasets that none of these releases has."""
    releases = list(kept)
    for there in built:
        needed = {copy for release in releases for copy in release.get(_name(work, there), {}).values()}
        for name in there.kept_names() - needed:
            there.drop_relation(name)


def _read(there: BigQueryWarehouse, copies: Mapping[str, str]) -> Mapping[str, bigquery.Table]:
    with there.jobs() as jobs, ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
        relations = dict(
            zip(copies, pool.map(jobs.table, map(there.reference, copies.values())), strict=True)
        )
    for name, relation in relations.items():
        if relation is None:
            raise WarehouseError(
                f"The release cannot be returned to: {copies[name]}, the copy of {name} in {there.dataset}, "
                "is not there. Nothing was changed."
            )
    return {name: relation for name, relation in relations.items() if relation}


def _name(work: BigQueryWarehouse, there: BigQueryWarehouse) -> str:
    """The name of a work dataset in the record: with its project if that is not the warehouse's."""
    return there.dataset if there.project == work.project else f"{there.project}.{there.dataset}"


def _copy(work: BigQueryWarehouse, there: BigQueryWarehouse, relation: bigquery.Table, name: str) -> Change:
    """The statement that makes a relation of that name which is the same, with its state."""
    full_name = f"{_name(work, there)}.{name}"
    state, words = sql.state_in(relation.description), sql.words_in(relation.description)
    target, options = there.quoted_name(name), options_clause(words, state, {}, relation)
    if relation.table_type == "VIEW":
        statement = f"create or replace view {target}\n{options}\nas {relation.view_query}"
        return Change(full_name, [statement])
    statement = clone_statement(target, there.quoted_name(relation.table_id), options)
    return Change(full_name, [statement], table=there.reference(name), rows=relation.num_rows or 0)


def refuse_failed(errors: Mapping[str, str]) -> None:
    """Raise `WarehouseError` if changes of `carry_out` were not made."""
    if errors:
        raise WarehouseError(" ".join(f"{name}: {text}" for name, text in errors.items()))
