"""What runs built in the work datasets of BigQuery takes the place of what people read.

A table is replaced by a clone of the built one and a view by its query over what people read, each in one
atomic statement that reads no rows and is not charged for. docs/cloud.md says what a replacement keeps.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from google.api_core.exceptions import NotFound
from google.cloud import bigquery

from serverless_assets import google_errors
from serverless_assets.errors import error_sentence
from serverless_assets.hashing import json_digest
from serverless_assets.warehouse import WarehouseError, content_of, version_of
from serverless_assets.warehouse import bigquery_sql as sql
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from serverless_assets.warehouse.bigquery_dataset import CALLS_AT_ONCE, SERVICE
from serverless_assets.warehouse.bigquery_jobs import Jobs
from serverless_assets.warehouse.bigquery_layout import layout_of

# A row for each release, written by `bigquery_history`.
RELEASES = "serverless_releases"
# What BigQuery knows of the relations in each work dataset, by name.
Built = Mapping[BigQueryWarehouse, Mapping[str, bigquery.Table]]
# In the state of a published relation: a hash of the description that it was published with, which tells
# whether somebody wrote another one.
WORDS = "words"
# What a run does not replace, as somebody made it for more than its rows: what it is, by BigQuery's type.
IRREPLACEABLE = {
    "MATERIALIZED_VIEW": "materialized view",
    "EXTERNAL": "external table",
    "SNAPSHOT": "snapshot table",
}


@dataclass(frozen=True)
class Change:
    """What becomes of a relation that people read: statements, to be run one after the other.

    `by_hand` is what somebody did to it since it was published. With `is_bookkeeping`, people would read the
    same of it (`content_of`), and `has_same_rows` says so of its rows (`version_of`). A `table` then holds so
    many `rows`.
    """

    name: str
    statements: Sequence[str]
    is_drop: bool = False
    by_hand: str = ""
    is_bookkeeping: bool = False
    has_same_rows: bool = False
    table: bigquery.TableReference | None = None
    rows: int = 0


# Changes that are made side by side, and those that wait for them.
Steps = Sequence[Sequence[Change]]


def find_changes(
    work: BigQueryWarehouse, built_relations: Built, live_relations: Built, existing: Set[str]
) -> Steps:
    """What to run so that people read what is in the work datasets: tables first, then views, then drops.

    A relation that has the same state in both is the same in both. One without a state is not of a run.

    Args:
        built_relations: what is in each of the work datasets.
        live_relations: what people read that runs have built there.
        existing: the names of all that runs can build. What people read of a model that is no longer there,
            or now is in another dataset, is dropped once its built relation was.

    Raises:
        WarehouseError: a relation is unfinished, or cannot be replaced without taking off what guards it.
    """
    tables: list[Change] = []
    views: dict[str, Change] = {}
    dropped: list[Change] = []
    record: bigquery.Table | None = None
    for there, built in built_relations.items():
        read, live = there.published(), live_relations[there]
        # It lies in the first of them.
        record = record or live.get(RELEASES)
        with read.jobs() as jobs:
            for name, relation in built.items():
                state, before = sql.state_in(relation.description), live.get(name)
                if state.get("dirty_reason") and name in existing:
                    raise WarehouseError(
                        f"{read.qualified_name(name)} is unfinished: {state['dirty_reason']}."
                    )
                if not state or state.get("dirty_reason") or (before and _is_same(relation, before)):
                    continue
                _refuse_lost_rows(jobs, relation, state)
                is_view = relation.table_type == "VIEW"
                change = replace(
                    _view(relation, before, work, read)
                    if is_view
                    else _table(jobs, relation, before, there, read),
                    by_hand=_by_hand(relation, before, record),
                    is_bookkeeping=before is not None and _is_same(relation, before, content_of),
                    has_same_rows=before is not None and _is_same(relation, before, version_of),
                )
                if is_view:
                    views[read.quoted_name(name)] = change
                else:
                    tables.append(change)
        moved = {name for other, names in built_relations.items() if other is not there for name in names}
        for name in live.keys() - built.keys() - (existing - moved):
            if sql.state_in((relation := live[name]).description):
                dropped.append(
                    Change(read.qualified_name(name), [drop_statement(relation, read)], is_drop=True)
                )
    return [tables, *parents_first(views), dropped]


def find_irreplaceable(work: BigQueryWarehouse) -> Mapping[str, str]:
    """Return a sentence on each published relation that a run does not replace, by name."""
    sentences = {}
    for there in work.in_all_schemas():
        read = there.published()
        with read.jobs() as jobs, suppress(NotFound):
            for item in jobs.client.list_tables(f"{read.project}.{read.dataset}", **jobs.call):
                if kind := IRREPLACEABLE.get(item.table_type):
                    name, quoted = read.qualified_name(item.table_id), read.quoted_name(item.table_id)
                    sentences[item.table_id] = (
                        f"{name} is a {kind}, in whose place no run publishes. Drop it "
                        f"(`drop {kind} {quoted}`), or give the model another `alias`."
                    )
    return sentences


def carry_out(read: BigQueryWarehouse, steps: Steps) -> Mapping[str, str]:
    """Make the changes of each step side by side, one step after the other.

    Returns:
        By name, why a change was not made: empty if all of them were. After an error no step is begun.
    """
    errors: dict[str, str] = {}

    def make(change: Change) -> None:
        try:
            for statement in change.statements:
                jobs.run(statement)
            if change.table is not None:
                replace(jobs, subject=change.name).refuse_other_count(change.table, change.rows)
        except google_errors.ERRORS as error:
            errors[change.name] = google_errors.explain(error, SERVICE)
        except Exception as error:
            # Whatever it is, it is said of which relation, beside those that were replaced.
            errors[change.name] = error_sentence(error).removeprefix(f"{change.name}: ")

    with read.jobs() as jobs, ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
        for step in steps:
            if errors:
                errors |= {change.name: "waits for the others." for change in step}
            else:
                list(pool.map(make, step))
    return errors


def _refuse_lost_rows(jobs: Jobs, built: bigquery.Table, state: Mapping[str, object]) -> None:
    """Raise `WarehouseError` if a table holds other rows than were counted when it was built.

    One whose config says that its rows expire is not compared.
    """
    counted = state.get("rows")
    expires = built.time_partitioning is not None and built.time_partitioning.expiration_ms
    if built.table_type != "VIEW" and not expires and counted not in (None, built.num_rows or 0):
        replace(jobs, subject=str(built.reference)).refuse_other_count(built.reference, int(str(counted)))


def _is_same(
    built: bigquery.Table,
    live: bigquery.Table,
    part: Callable[[Mapping[str, object]], object] = dict,
) -> bool:
    """Whether both are of one kind and have the same state, or the same `part` of it."""
    state = {key: value for key, value in sql.state_in(live.description).items() if key != WORDS}
    same_kind = (built.table_type == "VIEW") == (live.table_type == "VIEW")
    return same_kind and part(state) == part(sql.state_in(built.description))


def _by_hand(built: bigquery.Table, live: bigquery.Table | None, record: bigquery.Table | None) -> str:
    """Say what somebody did to the published relation; empty if no more than a run changed it."""
    if live is not None:
        return "" if sql.state_in(live.description) else "was replaced by something that no run published"
    # All that was built before the last release was recorded was part of it.
    return "was dropped since it was published" if record and built.modified <= record.modified else ""


def _table(
    jobs: Jobs,
    built: bigquery.Table,
    live: bigquery.Table | None,
    there: BigQueryWarehouse,
    read: BigQueryWarehouse,
) -> Change:
    name = built.table_id
    target, source = read.quoted_name(name), there.quoted_name(name)
    options = _published_options(built, live)
    statements: Sequence[str] = [clone_statement(target, source, options)]
    if live is not None and live.table_type != "VIEW" and jobs.is_guarded(live):
        statements = _replace_rows_in_place(built, live, target, source, options)
    elif live is not None and (live.table_type == "VIEW" or layout_of(live) != layout_of(built)):
        # BigQuery does not replace a view by a table, nor a table by one of another layout.
        statements = [drop_statement(live, read), *statements]
    table = read.reference(name)
    return Change(read.qualified_name(name), statements, table=table, rows=built.num_rows or 0)


def _view(
    built: bigquery.Table, live: bigquery.Table | None, work: BigQueryWarehouse, read: BigQueryWarehouse
) -> Change:
    name_of_work = rf"(?<![\w-]){re.escape(work.dataset)}"
    query = re.sub(name_of_work, work.published().dataset, str(built.view_query))
    target, options = read.quoted_name(built.table_id), _published_options(built, live)
    create = f"create or replace view {target}\n{options}\nas {query}"
    drop = [drop_statement(live, read)] if live is not None and live.table_type != "VIEW" else []
    return Change(read.qualified_name(built.table_id), [*drop, create])


def _replace_rows_in_place(
    built: bigquery.Table, live: bigquery.Table, target: str, source: str, options: str
) -> Sequence[str]:
    """Replace rows and keep the table: a clone would take off its policies. It reads all rows, once."""
    columns, before = ([(f.name, f.field_type) for f in table.schema] for table in (built, live))
    if columns != before:
        raise WarehouseError(
            f"{target} carries row access policies or policy tags, which a replacement would take off, or "
            "this account lacks bigquery.rowAccessPolicies.list to tell; and its columns change from "
            f"{before} to {columns}. Grant that, or alter the table by hand, then run again."
        )
    names = ", ".join(sql.identifier(name) for name, _ in columns)
    return [
        f"begin transaction;\ntruncate table {target};\n"
        f"insert into {target} ({names}) select {names} from {source};\ncommit transaction;",
        f"alter table {target} set {options}",
    ]


def clone_statement(target: str, source: str, options: str) -> str:
    return f"create or replace table {target}\nclone {source}\n{options}"


def drop_statement(relation: bigquery.Table, read: BigQueryWarehouse) -> str:
    kind = "view" if relation.table_type == "VIEW" else "table"
    return f"drop {kind} if exists {read.quoted_name(relation.table_id)}"


def _published_options(built: bigquery.Table, live: bigquery.Table | None) -> str:
    words = sql.words_in(built.description)
    state = {**sql.state_in(built.description), WORDS: json_digest(words)}
    if live is not None and sql.state_in(live.description).get(WORDS, state[WORDS]) != json_digest(
        sql.words_in(live.description)
    ):
        words = sql.words_in(live.description)
    return options_clause(words, state, live.labels if live is not None else {}, built, live)


def options_clause(
    words: str,
    state: Mapping[str, object],
    labels: Mapping[str, str],
    built: bigquery.Table,
    live: bigquery.Table | None = None,
) -> str:
    """The options of a relation: those of the built one, and what people set on the live one."""
    pairs = ", ".join(
        f"({sql.literal(key)}, {sql.literal(value)})" for key, value in {**labels, **built.labels}.items()
    )
    options = [f"description={sql.literal(sql.description_with_state(words, state))}", f"labels=[{pairs}]"]
    if live is not None and live.friendly_name:
        options.append(f"friendly_name={sql.literal(live.friendly_name)}")
    if live is not None and live.require_partition_filter and built.table_type != "VIEW":
        options.append("require_partition_filter=true")
    if live is not None and live.encryption_configuration and live.encryption_configuration.kms_key_name:
        options.append(f"kms_key_name={sql.literal(live.encryption_configuration.kms_key_name)}")
    return f"options({', '.join(options)})"


def parents_first(views: Mapping[str, Change]) -> Iterator[Sequence[Change]]:
    """The views, by their quoted names, in steps: each after those that its query names."""
    waiting = dict(views)
    while waiting:
        ready = [
            name
            for name, view in waiting.items()
            if not any(other in view.statements[-1] for other in waiting if other != name)
        ]
        yield [waiting.pop(name) for name in ready or list(waiting)]
