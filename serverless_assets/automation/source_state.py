"""What changed at the source since its tables were last loaded, and the run that loads it. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Literal

from serverless_assets.hashing import digest
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.months import name_months
from serverless_assets.names import MAIN_JOB, name_some

# By `etag_key`: a hash of the validators (ETag, Last-Modified); no entry where the source gave none.
ETags = Mapping[str, str]
# How many tables a message names, before `and N more`.
TABLES_NAMED = 3
# The months of each changed table; None if all of it is to be loaded.
Changes = Mapping[str, frozenset[date] | None]


@dataclass(frozen=True)
class SourceState:
    """What the sensor remembers of a source between ticks, as its cursor. It holds no address and no secret.

    loaded: the validators when a run last succeeded in loading the source.
    launched: those of the last run that was launched, until it succeeds.
    run_key: the key of that run. The next key is derived from it, so that a source that returns to an earlier
        content is loaded again.
    down_since: when the source stopped answering, in Unix time.
    is_alerted: whether an alert of that was sent.
    """

    source: str = ""
    loaded: ETags = field(default_factory=dict)
    launched: ETags | None = None
    run_key: str = ""
    down_since: float | None = None
    is_alerted: bool = False

    @property
    def latest(self) -> ETags:
        return self.loaded if self.launched is None else self.launched

    @classmethod
    def read(cls, cursor: str | None) -> "SourceState":
        """Return the state that was written as `cursor`; an empty one if somebody reset or edited it."""
        try:
            state = json.loads(cursor or "{}")
            is_whole = isinstance(state["loaded"], dict) and isinstance(state["launched"], dict | None)
            return cls(**state) if is_whole else cls()
        except (ValueError, KeyError, TypeError):
            return cls()

    def to_cursor(self) -> str:
        """Return the state as JSON."""
        return json.dumps(vars(self))

    def may_differ(self, key: str, etag: str) -> bool:
        """Return whether the warehouse may hold other rows than those of `etag`: after a failed run, either
        the rows before it or those that it was to load."""
        return etag != self.loaded.get(key) or etag != self.latest.get(key)


@dataclass(frozen=True)
class RunOutcome:
    """What became of the launched run; `run_id` is that of the attempt that a message names."""

    status: Literal["succeeded", "failed", "running", "deleted"]
    run_id: str = ""


@dataclass(frozen=True)
class Decision:
    """The tables to load, why or why not, and the state after it. `months` is None for whole tables."""

    state: SourceState
    message: str
    tables: Sequence[str] = ()
    months: tuple[date, date] | None = None


def etag_key(table: str, month: date | None = None) -> str:
    """Return the key of the validators of a month of a table, or of the whole table."""
    return f"{table}/{month:%Y-%m}" if month else table


def settle(state: SourceState, outcome: RunOutcome | None) -> SourceState:
    """Return the state once the outcome of the launched run is known."""
    if state.launched is not None and outcome:
        if outcome.status == "succeeded":
            return replace(state, loaded=state.launched, launched=None)
        if outcome.status == "deleted":
            return replace(state, launched=None)
    return state


def changed_facts(state: SourceState, of_tables: ETags, tables: Sequence[RawTable]) -> list[RawTable]:
    """Return the facts with other validators than before: those whose months are worth asking for."""
    return [
        table
        for table in tables
        if table.has_months
        and table.name in of_tables
        and of_tables[table.name] != state.latest.get(table.name)
    ]


def merge_etags(state: SourceState, of_tables: ETags, facts: Sequence[RawTable], of_months: ETags) -> ETags:
    """Return all validators as they are now; what was not asked for again is taken from the state."""
    asked = {fact.name for fact in facts}
    kept = {
        key: etag
        for key, etag in state.latest.items()
        if "/" not in key or key.partition("/")[0] not in asked
    }
    return {**kept, **of_tables, **of_months}


def decide(
    state: SourceState,
    etags: ETags,
    outcome: RunOutcome | None,
    tables: Sequence[RawTable],
    months: Sequence[date],
    is_loaded: bool = False,
) -> Decision:
    """Decide what to load.

    `state` is settled with `outcome`; `months` are those of the partitions. At a first look, if every table
    `is_loaded` by earlier runs, that is taken for what the source has.
    """
    if state.launched is not None and outcome:
        run = outcome.run_id[:8]
        if outcome.status == "running":
            again = (
                " The source has changed again since: that is loaded next." if etags != state.latest else ""
            )
            return Decision(state, f"Run {run} is still loading the last change.{again}")
        if etags == state.latest:
            return Decision(
                state,
                f"The last change was not loaded, as run {run} did not succeed. Re-execute it; otherwise the "
                "change is loaded with the next one.",
            )
    if not etags:
        return Decision(state, "The source cannot be watched.")
    if is_loaded and not state.loaded:
        return Decision(
            replace(state, loaded=etags),
            "First look at this source: what changes from now on is loaded. For what changed since the last "
            f"run, launch {MAIN_JOB}.",
        )
    changes = _changes(state, etags, tables, months)
    if not changes:
        return Decision(state, "Nothing changed at the source.")
    run_key = digest(f"{state.run_key} {state.source} {sorted(etags.items())}")
    return Decision(
        replace(state, launched=etags, run_key=run_key),
        f"Changed at the source: {_describe(changes)}."
        if state.loaded
        else "First look at this source: everything is loaded.",
        list(changes),
        _month_range(changes, tables),
    )


def _changes(state: SourceState, etags: ETags, tables: Sequence[RawTable], months: Sequence[date]) -> Changes:
    if not state.loaded:
        return {table.name: None for table in tables}
    changes: dict[str, frozenset[date] | None] = {}
    for table in tables:
        etag = etags.get(table.name)
        if etag and state.may_differ(table.name, etag):
            changes[table.name] = _changed_months(state, etags, table, months)
    for table in tables:
        parent = table.dated_by.parent.name if table.dated_by else ""
        if parent in changes:
            # It takes the months of its rows from the parent's rows, which may have changed.
            of_parent, own = changes[parent], changes.get(table.name, frozenset())
            changes[table.name] = None if of_parent is None or own is None else own | of_parent
    return {table.name: changes[table.name] for table in tables if table.name in changes}


def _changed_months(
    state: SourceState, etags: ETags, table: RawTable, months: Sequence[date]
) -> frozenset[date] | None:
    """Return the months that changed; None if all did, or if the source does not tell."""
    if not table.has_months:
        return None
    of_months = {month: etags.get(etag_key(table.name, month)) for month in months}
    # A source without windows gives the whole table whatever month is asked for.
    if None in of_months.values() or set(of_months.values()) == {etags[table.name]}:
        return None
    changed = frozenset(
        month
        for month, etag in of_months.items()
        if etag and state.may_differ(etag_key(table.name, month), etag)
    )
    # If no month changed, rows before the first month did.
    return changed if changed and len(changed) < len(months) else None


def _month_range(changes: Changes, tables: Sequence[RawTable]) -> tuple[date, date] | None:
    """Return the first and last month to load; None if a fact is to be loaded whole, or no fact changed.

    Snapshots are loaded whole in a run over months, too. Of months in between, ingestion loads what changed.
    """
    of_facts = [changes[table.name] for table in tables if table.has_months and table.name in changes]
    months = [month for changed in of_facts for month in changed or ()]
    return None if None in of_facts or not months else (min(months), max(months))


def _describe(changes: Changes) -> str:
    return name_some(
        [
            table if months is None else f"{table} {name_months(sorted(months))}"
            for table, months in changes.items()
        ],
        TABLES_NAMED,
        "; ",
    )
