"""Which tables and months to load, given what the source said before and what it says now. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Literal

from serverless_assets.automation.source_loads import Changed, Load, describe_changes, loads_of
from serverless_assets.automation.source_marks import Marks, Question
from serverless_assets.ingestion.tables import Table


@dataclass(frozen=True)
class Launch:
    """A change that runs were launched for: what the source said then, and the keys of the runs."""

    marks: Marks
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Watch:
    """What is remembered of a source from tick to tick.

    confirmed: what it said when a run last succeeded in loading it.
    launched: the last change, until its runs have succeeded.
    last_change: its key. The next key follows from it, so that a source that is again what it was before
        has changed nevertheless.
    """

    source: str = ""
    confirmed: Marks = field(default_factory=dict)
    launched: Launch | None = None
    last_change: str = ""

    @property
    def latest(self) -> Marks:
        return self.launched.marks if self.launched else self.confirmed

    def differs(self, question: Question, mark: str) -> bool:
        """Whether the warehouse may hold another answer than the one of this mark."""
        # After a run that failed, it may hold either.
        return mark != self.confirmed.get(question) or mark != self.latest.get(question)


@dataclass(frozen=True)
class Fate:
    """What became of the runs that were launched; `runs` are those to name. Gone: nobody knows of them."""

    outcome: Literal["succeeded", "failed", "running", "gone"]
    runs: Sequence[str] = ()


@dataclass(frozen=True)
class Decision:
    """What to launch, why or why not, and what to remember. `changed` is empty if there is nothing."""

    watch: Watch
    message: str
    loads: Sequence[Load] = ()
    changed: Changed = field(default_factory=dict)


def settled(watch: Watch, fate: Fate | None) -> Watch:
    """What to remember once it is known what became of the runs."""
    if watch.launched is None or fate is None:
        return watch
    if fate.outcome == "succeeded":
        return replace(watch, confirmed=watch.launched.marks, launched=None)
    return replace(watch, launched=None) if fate.outcome == "gone" else watch


def to_look_into(watch: Watch, wholes: Marks, tables: Sequence[Table]) -> list[Table]:
    """The facts that changed since they were last asked about: their months tell where."""
    asked = [(table, wholes.get(Question(table.name))) for table in tables if table.event_time]
    return [table for table, mark in asked if mark and mark != watch.latest.get(Question(table.name))]


def marks_now(watch: Watch, wholes: Marks, looked_into: Sequence[Table], months: Marks) -> Marks:
    """All that the source says now; what was not asked again is as it was."""
    names = {table.name for table in looked_into}
    kept = {q: mark for q, mark in watch.latest.items() if not (q.month and q.table in names)}
    return {**kept, **wholes, **months}


def decide(
    watch: Watch, now: Marks, fate: Fate | None, tables: Sequence[Table], months: Sequence[date]
) -> Decision:
    """What to launch. `watch` is settled with `fate`; `months` are those of the partitions."""
    if watch.launched and fate and fate.outcome == "running":
        again = " The source has changed again since: that comes next." if now != watch.latest else ""
        return Decision(watch, f"{_runs(fate.runs).capitalize()} still loading the last change.{again}")
    if watch.launched and now == watch.latest:
        return Decision(
            watch,
            f"The last change was not loaded: {_runs(fate.runs if fate else ())} not successful. Re-execute "
            "from the failure; else the next change at the source takes it along.",
        )
    if not now:
        return Decision(watch, "The source cannot be watched.")
    changed = _changed(watch, now, tables, months)
    if not changed:
        return Decision(watch, "Nothing changed at the source.")
    key = _key(watch, now)
    loads = loads_of(key, changed, tables)
    launch = Launch(now, tuple(load.key for load in loads))
    after = replace(watch, launched=launch, last_change=key)
    first = "" if watch.confirmed else "First look at this source. "
    return Decision(after, f"{first}Changed at the source: {describe_changes(changed)}.", loads, changed)


def _changed(watch: Watch, now: Marks, tables: Sequence[Table], months: Sequence[date]) -> Changed:
    if not watch.confirmed:
        return {table.name: None for table in tables}
    found: dict[str, frozenset[date] | None] = {}
    for table in tables:
        question = Question(table.name)
        if question in now and watch.differs(question, now[question]):
            found[table.name] = _changed_months(watch, now, table, months)
    for table in tables:
        parent = table.dated_by.parent.name if table.dated_by else ""
        if parent in found:
            # Its rows of these months may be dated anew.
            theirs, own = found[parent], found.get(table.name, frozenset())
            found[table.name] = None if theirs is None or own is None else own | theirs
    return {table.name: found[table.name] for table in tables if table.name in found}


def _changed_months(watch: Watch, now: Marks, table: Table, months: Sequence[date]) -> frozenset[date] | None:
    """The months that changed; None if all did, or if the source does not tell."""
    if not table.event_time:
        return None
    marks = {month: now.get(Question(table.name, month)) for month in months}
    if None in marks.values() or set(marks.values()) == {now[Question(table.name)]}:
        # It says nothing of months, or gives the whole table whatever is asked for.
        return None
    days = frozenset(
        month for month, mark in marks.items() if mark and watch.differs(Question(table.name, month), mark)
    )
    # If it changed in none of them, it did before the first.
    return days if days and len(days) < len(months) else None


def _key(watch: Watch, now: Marks) -> str:
    said = sorted((str(question), mark) for question, mark in now.items())
    return hashlib.sha256(f"{watch.last_change} {watch.source} {said}".encode()).hexdigest()[:16]


def _runs(ids: Sequence[str]) -> str:
    named = ", ".join(run[:8] for run in ids)
    return f"runs {named} are" if len(ids) > 1 else f"run {named} is"
