"""What the warehouse holds of a raw table, as the state that is kept beside it says. Pure."""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date
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
# Hashes of rows are numbers of 64 bits.
MODULUS = 1 << 64
# The fields of a state that are stored as they are.
STORED_TEXTS = ("version", "built_by", "definition", "source", "hashed_by", "cursor", "first", "last")


@dataclass(frozen=True)
class Part:
    """The rows of one month, or of a whole table: how many, and the sum of their hashes.

    It is a sum so that the one after some rows were added or removed is found by the difference.
    """

    rows: int = 0
    total: int = 0

    def __add__(self, other: "Part") -> "Part":
        return Part(self.rows + other.rows, (self.total + other.total) % MODULUS)

    def __sub__(self, other: "Part") -> "Part":
        return Part(self.rows - other.rows, (self.total - other.total) % MODULUS)

    @property
    def hash(self) -> str:
        digits = base64.urlsafe_b64encode(self.total.to_bytes(8)).decode().rstrip("=")
        return f"{self.rows:x}.{digits}"

    @classmethod
    def read(cls, hash: str) -> "Part":
        """Return the part with this hash, which may have more after a second dot.

        Raises:
            ValueError: it is none.
        """
        rows, digits, *_ = hash.split(".")
        return cls(int(rows, 16), int.from_bytes(base64.urlsafe_b64decode(digits + "=")))


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

    months: the rows of each month by its first day, for a fact.
    built_by: the run that last changed it.
    definition: that of the table when it was last loaded whole, by `definition_of`.
    responses: the responses that its rows came from, by the key of the request.
    source: identifies the source that all of its rows come from, as `HttpSource.key`; empty if unknown.
    hashed_by: what the versions were made with; they are compared with those of the same alone.
    cursor: the greatest `updated_at` of all rows that were loaded, as it is requested; empty if unknown.
    first, last: the event times of the first and the last row of a fact, in ISO format; empty if unknown.
    """

    version: str = ""
    months: Mapping[date, Part] | None = None
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
            months = stored.get("months")
            if months is not None:
                months = {date.fromisoformat(day): Part.read(hash) for day, hash in months.items()}
            return cls(**{"hashed_by": "an earlier version", **texts}, months=months, responses=responses)
        except (AttributeError, TypeError, ValueError):
            return cls()

    def as_json(self) -> dict[str, Any]:
        """Return what to store with the table: empty if it is unknown what that holds."""
        if not self.version:
            return {}
        stored: dict[str, Any] = {name: text for name in STORED_TEXTS if (text := getattr(self, name))}
        if self.months is not None:
            stored["months"] = {day.isoformat(): part.hash for day, part in self.months.items()}
        responses = {
            key: {**asdict(response.validators), "dated_by": response.dated_by}
            for key, response in self.responses.items()
        }
        stored["validators"] = {key: {k: v for k, v in kept.items() if v} for key, kept in responses.items()}
        return stored

    def within(self, table: RawTable, window: Window | None) -> str:
        """Return the version of the rows in the window, or of all without one; empty if unknown."""
        if window is None or not table.event_time or not self.version:
            return self.version
        if self.months is None:
            return ""
        return version_of(table.schema, {day: part for day, part in self.months.items() if day in window})

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
        months = {day: part for day, part in self.months.items() if day not in window}
        months = dict(sorted({**months, **(loaded.months or {})}.items()))
        # The month of the first row is the oldest of all, and that of the last row the newest.
        oldest, newest = (f"{edge(months):%Y-%m}" if months else "none" for edge in (min, max))
        # A load of some months leaves the table laid out as it was.
        return replace(
            loaded,
            version=version_of(table.schema, months),
            months=months,
            definition=self.definition,
            cursor=self.cursor,
            first=next((time for time in (loaded.first, self.first) if time.startswith(oldest)), ""),
            last=next((time for time in (loaded.last, self.last) if time.startswith(newest)), ""),
        )


def reason_to_load(table: RawTable, state: TableState | None, window: Window | None = None) -> str:
    """Return why to load a table whatever its rows are; empty if that depends on them.

    A load of some months leaves the table laid out as it is, whatever the catalogue now says of it.
    """
    if state is None:
        return "first load"
    if not state.version:
        return "it was not known what the table held"
    if state.hashed_by != HASHED_BY:
        return f"its rows were hashed by {state.hashed_by}, and are now by {HASHED_BY}"
    if window is None and state.definition != definition_of(table):
        return "its definition changed"
    return ""


def responses_to_keep(responses: Mapping[str, CachedResponse]) -> Mapping[str, CachedResponse]:
    """Return the most recent responses that carry a validator."""
    usable = [(key, response) for key, response in responses.items() if response.validators]
    return dict(usable[-RESPONSES_KEPT:])


def version_of(schema: pa.Schema, months: Mapping[date, Part]) -> str:
    """Return the version of a fact's rows, given those of each month."""
    hashes = sorted((month.isoformat(), part.hash) for month, part in months.items())
    return digest(f"{schema.names} {schema.types} {hashes}")


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
