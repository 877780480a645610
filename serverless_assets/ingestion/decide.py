"""What to do with a table, given what its relation holds and what the source answered. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from serverless_assets.ingestion.audit import Content
from serverless_assets.ingestion.catalog import RawTable, Window
from serverless_assets.ingestion.state import (
    CachedResponse,
    TableState,
    answers_to_keep,
    definition_of,
    merged,
)

MONTHS_NAMED = 6


@dataclass(frozen=True)
class LoadDecision:
    """What becomes of a table: loaded, or reused as it is; and why.

    version: of the rows that were asked for, before and after alike.
    holding: what to keep with the relation, along with the rows if it is loaded; None to leave the note.
    months: first days of those whose rows change, gone ones among them; for a fact.
    """

    load: bool
    reason: str
    version: str
    holding: TableState | None
    months: Sequence[date] = ()


def known_answer(table: RawTable, held: TableState | None, key: str) -> CachedResponse | None:
    """The answer to a request that the relation holds, if the source may be asked whether it still is."""
    if held is None or held.definition != definition_of(table):
        return None
    known = held.answers.get(key)
    # Rows that a parent dates are known only with that parent's.
    return known if known and (known.dated_by or not table.dated_by) else None


def window_to_load(
    table: RawTable, held: TableState | None, source: str, window: Window | None
) -> Window | None:
    """What of a table to load if `window` is asked for: None is all of it.

    Some months may replace only those of a relation that holds this source's rows. Beside the rows of another
    source, or of nobody knows which, they would make a table that no source has.
    """
    if window is None or not table.event_time or held is None:
        return window if table.event_time else None
    return window if held.is_of(source) else None


def as_it_was(table: RawTable, held: TableState, window: Window | None, source: str) -> LoadDecision:
    """What to do if the source says that its answer is the one that is held."""
    holding = None if held.source == source else replace(held, source=source)
    return LoadDecision(False, "unchanged at the source: not downloaded", held.within(table, window), holding)


def decide(
    table: RawTable,
    held: TableState | None,
    window: Window | None,
    content: Content,
    key: str,
    known: CachedResponse,
    source: str,
    run_id: str,
    force: bool = False,
) -> LoadDecision:
    """What to do with rows that arrived; `held` is None if there is no relation.

    key, known, source: the request that they answer, the answer, and whose it is.
    """
    window = window if table.event_time else None
    months = {day.isoformat(): part.hash for day, part in content.months.items()}
    arrived = TableState(
        content.hash,
        months if table.event_time else None,
        run_id,
        definition_of(table),
        answers_to_keep({key: known}),
        source,
    )
    before = held or TableState()
    same = before.within(table, window) == content.hash
    # A window leaves a table laid out as it is, whatever the catalogue now says.
    as_defined = window is not None or before.definition == arrived.definition
    if same and as_defined and not force:
        renewed = replace(before.with_answer(key, known), source=source)
        return LoadDecision(
            False,
            "unchanged content: not loaded",
            content.hash,
            None if renewed == before else renewed,
        )
    changed = _changed(before.months or {}, months, window)
    if held is None:
        why = "first load"
    elif not held.version:
        why = "it was not known what the table held"
    elif not as_defined:
        why = "its definition changed"
    else:
        why = named(changed) or "new content"
    reason = "forced: rebuild all" if force else f"loaded from the source: {why}"
    holding = merged(table, held, window, arrived) if held and window else arrived
    return LoadDecision(True, reason, content.hash, holding, changed)


def _changed(before: Mapping[str, str], now: Mapping[str, str], window: Window | None) -> list[date]:
    days = sorted(day for day in before.keys() | now.keys() if before.get(day) != now.get(day))
    return [date.fromisoformat(day) for day in days if window is None or day in window]


def named(months: Sequence[date]) -> str:
    """The first few months, for a sentence."""
    named = ", ".join(f"{month:%Y-%m}" for month in months[:MONTHS_NAMED])
    more = len(months) - MONTHS_NAMED
    return f"{named} and {more} more" if more > 0 else named
