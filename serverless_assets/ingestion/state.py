"""What the warehouse holds of a raw table, as the state that is kept beside it says. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from serverless_assets.hashing import digest
from serverless_assets.ingestion.http import Validators
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.months import Window

# The whole history, and what else people ask for by turns; there is room for these and 30 years of months.
RESPONSES_KEPT = 8
# Another version of DuckDB may hash the same rows in another way.
HASHED_BY = f"DuckDB {version('duckdb')}, in sums"
# The fields of a state that are stored as they are.
STORED_TEXTS = ("version", "built_by", "definition", "source", "hashed_by", "cursor", "first", "last")
STORED_IF_KNOWN = ("source", "cursor", "first", "last")


@dataclass(frozen=True)
class CachedResponse:
    """A response of the source whose rows the table holds.

    The rows of a fact that its parent dates follow from two responses: `dated_by` is the version of the
    parent's rows that they were dated by.
    """

    validators: Validators
    dated_by: str = ""


@dataclass(frozen=True)
class TableState:
    """What a table holds; `version` is empty if that is unknown.

    months: the version of each month's rows by its first day, for a fact.
    built_by: the run that last changed it.
    definition: that of the table when it was last loaded whole, by `definition_of`.
    responses: the responses that its rows came from, by the key of the request.
    source: identifies the source that all of its rows come from, as `HttpSource.key`; empty if unknown.
    hashed_by: what the versions were made with; they are compared with those of the same alone.
    cursor: the greatest `updated_at` of all rows that were loaded, as it is requested; empty if unknown.
    first, last: the event times of the first and the last row of a fact, in ISO format; empty if unknown.
    """

    version: str = ""
    months: Mapping[str, str] | None = None
    built_by: str = ""
    definition: str = ""
    responses: Mapping[str, CachedResponse] = field(default_factory=dict)
    source: str = ""
    hashed_by: str = HASHED_BY
    cursor: str = ""
    first: str = ""
    last: str = ""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "TableState":
        """Return the state that was stored; an unknown one if `as_json` did not make it."""
        if not isinstance(stored.get("version"), str):
            return cls()
        try:
            responses = {
                key: CachedResponse(
                    Validators(str(kept.get("etag", "")), str(kept.get("last_modified", ""))),
                    str(kept.get("dated_by", "")),
                )
                for key, kept in stored.get("validators", {}).items()
            }
            texts = {name: str(stored[name]) for name in STORED_TEXTS if name in stored}
            months = None if stored.get("months") is None else dict(stored["months"])
            return cls(**{"hashed_by": "an earlier version", **texts}, months=months, responses=responses)
        except (AttributeError, TypeError, ValueError):
            return cls()

    def as_json(self) -> dict[str, Any]:
        """Return what to store with the table: empty if it is unknown what that holds."""
        if not self.version:
            return {}
        texts = {name: getattr(self, name) for name in STORED_TEXTS}
        responses = {
            key: {**asdict(response.validators), "dated_by": response.dated_by}
            for key, response in self.responses.items()
        }
        return {
            **{name: text for name, text in texts.items() if text or name not in STORED_IF_KNOWN},
            **({} if self.months is None else {"months": dict(self.months)}),
            "validators": {key: {k: v for k, v in kept.items() if v} for key, kept in responses.items()},
        }

    def within(self, table: RawTable, window: Window | None) -> str:
        """Return the version of the rows in the window, or of all without one; empty if unknown."""
        if window is None or not table.event_time or not self.version:
            return self.version
        months = {day: version for day, version in (self.months or {}).items() if day in window}
        return "" if self.months is None else version_of(table.schema, months)

    def is_of(self, source: str) -> bool:
        """Whether all of its rows are known to be this source's."""
        is_known = bool(self.version) and self.months is not None and self.hashed_by == HASHED_BY
        return is_known and self.source == source

    def with_response(self, key: str, response: CachedResponse) -> "TableState":
        """Return the state of the same rows, known to be this response too."""
        others = {k: v for k, v in self.responses.items() if k != key}
        return replace(self, responses=responses_to_keep({**others, key: response}))

    def with_months(self, table: RawTable, window: Window, loaded: "TableState") -> "TableState":
        """Return the state once the rows of the window are replaced by those of `loaded`.

        It is what a load of all these rows would give. It is unknown if this state is: the months beside the
        window stay as they were.
        """
        if not self.version or self.months is None:
            return TableState()
        months = {day: version for day, version in self.months.items() if day not in window}
        months = dict(sorted({**months, **(loaded.months or {})}.items()))
        # The month of the first row is the oldest of all, and that of the last row the newest.
        first, last = (
            next((time for time in times if time[:7] == edge(months, default="")[:7]), "")
            for edge, times in ((min, (loaded.first, self.first)), (max, (loaded.last, self.last)))
        )
        # A load of some months leaves the table laid out as it was.
        return replace(
            loaded,
            version=version_of(table.schema, months),
            months=months,
            definition=self.definition,
            cursor=self.cursor,
            first=first,
            last=last,
        )


def cached_response(table: RawTable, state: TableState | None, key: str) -> CachedResponse | None:
    """Return the response to a request that the table was loaded from, if it may be made conditionally."""
    if state is None or must_load(table, state):
        return None
    response = state.responses.get(key)
    # Rows that a parent dates are known only with that parent's.
    return response if response and (response.dated_by or not table.dated_by) else None


def must_load(table: RawTable, state: TableState | None) -> bool:
    """Whether the table is loaded whatever its rows are, unless only some months are requested."""
    if state is None or not state.version or state.hashed_by != HASHED_BY:
        return True
    return state.definition != definition_of(table)


def window_to_load(
    table: RawTable, state: TableState | None, source: str, window: Window | None
) -> Window | None:
    """Return what of a table to load if `window` is requested: None is all of it.

    Some months may replace only those of a table that holds this source's rows. Beside the rows of another
    source, or of an unknown one, they would make a table that no source has.
    """
    if window is None or not table.has_months or state is None:
        return window if table.has_months else None
    return window if state.is_of(source) else None


def updated_since(table: RawTable, state: TableState | None, source: str) -> str:
    """Return the `updated_at` since which to request a table's changes; empty to request its rows.

    Changes are added to rows that are known to be this source's alone.
    """
    if not table.updated_at or state is None or must_load(table, state) or state.source != source:
        return ""
    return "" if table.event_time and state.months is None else state.cursor


def responses_to_keep(responses: Mapping[str, CachedResponse]) -> Mapping[str, CachedResponse]:
    """Return the most recent responses that carry a validator."""
    usable = [(key, response) for key, response in responses.items() if response.validators]
    return dict(usable[-RESPONSES_KEPT:])


def version_of(schema: pa.Schema, months: Mapping[str, str]) -> str:
    """Return the version of a fact's rows, whose months have these versions."""
    return digest(f"{schema.names} {schema.types} {sorted(months.items())}")


def definition_of(table: RawTable) -> str:
    """Return a version of the catalogue's entry: of all that says how an answer becomes a relation."""
    parent = (table.dated_by.parent.name, table.dated_by.column) if table.dated_by else ()
    columns = [(name, str(kind)) for name, kind in table.columns.items()]
    changes = f" {table.updated_at} {table.deleted}" if table.updated_at else ""
    by_day = " by day" if table.grain == "day" else ""
    return digest(
        f"{columns} {table.key} {table.event_time} {parent} {table.clustered_by} {table.description}"
        f"{changes}{by_day}"
    )
