"""The runs that load what changed at the source. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from serverless_assets.ingestion.tables import Table
from serverless_assets.ingestion.window import next_month

# What changed of a table: some months of a fact, or all of it.
Changed = Mapping[str, frozenset[date] | None]

MONTHS_NAMED = 6


@dataclass(frozen=True)
class Load:
    """A run to launch. The last one of a change also builds what follows from all of them."""

    key: str
    tables: Sequence[str]
    months: tuple[date, date] | None = None
    is_last: bool = True


def describe_changes(changed: Changed) -> str:
    """The tables and months, for a person."""
    return "; ".join(table if days is None else f"{table} {_named(days)}" for table, days in changed.items())


def loads_of(key: str, changed: Changed, tables: Sequence[Table]) -> Sequence[Load]:
    """The runs that load a change: one for each stretch of months, or one for whole tables."""
    facts = {table.name for table in tables if table.event_time}
    whole = [name for name, days in changed.items() if days is None]
    spans = _spans({name: days for name, days in changed.items() if days is not None})
    loads = [Load(_run_key(key, span), names, span, is_last=False) for span, names in spans]
    if spans and not facts & set(whole):
        # Snapshots are whole in a run over months, too.
        return [*loads[:-1], replace(loads[-1], tables=[*loads[-1].tables, *whole], is_last=True)]
    return [*loads, Load(_run_key(key, None), whole)]


def _spans(months: Mapping[str, frozenset[date]]) -> Sequence[tuple[tuple[date, date], Sequence[str]]]:
    """First and last month of each stretch in which the same tables changed."""
    spans: list[tuple[tuple[date, date], Sequence[str]]] = []
    for day in sorted(set().union(*months.values())):
        names = [name for name, days in months.items() if day in days]
        if spans and spans[-1][1] == names and next_month(spans[-1][0][1]) == day:
            spans[-1] = ((spans[-1][0][0], day), names)
        else:
            spans.append(((day, day), names))
    return spans


def _run_key(key: str, span: tuple[date, date] | None) -> str:
    return f"{key}:{span[0]:%Y-%m}..{span[1]:%Y-%m}" if span else key


def _named(days: Iterable[date]) -> str:
    ordered = sorted(days)
    named = ", ".join(f"{day:%Y-%m}" for day in ordered[:MONTHS_NAMED])
    more = len(ordered) - MONTHS_NAMED
    return f"{named} and {more} more" if more > 0 else named
