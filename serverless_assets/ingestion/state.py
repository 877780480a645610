"""What a raw relation holds, as the note kept with it says. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from serverless_assets.ingestion.catalog import RawTable, Window
from serverless_assets.ingestion.download import Validators

# The whole history, and what else people ask for by turns; a note has room for these and 30 years of months.
ANSWERS_REMEMBERED = 8


@dataclass(frozen=True)
class CachedResponse:
    """An answer of the source whose rows the relation holds.

    The rows of a fact that its parent dates follow from two answers: `dated_by` is the version of the
    parent's rows that they were dated by.
    """

    validators: Validators
    dated_by: str = ""


@dataclass(frozen=True)
class TableState:
    """What a relation holds; `version` is empty if nobody knows.

    months: the version of each month's rows by its first day, for a fact.
    built_by: the run that last changed it.
    definition: that of the table when it was last loaded whole, see `definition_of`.
    answers: the answers that its rows are, by the key of the request.
    source: identifies the source that all of its rows come from, see `TableSource.key`; empty if unknown.
    """

    version: str = ""
    months: Mapping[str, str] | None = None
    built_by: str = ""
    definition: str = ""
    answers: Mapping[str, CachedResponse] = field(default_factory=dict)
    source: str = ""

    @classmethod
    def from_note(cls, note: Mapping[str, Any]) -> "TableState":
        """What a note says; that nobody knows if it is not one of these notes."""
        version, months, answers = (note.get(name) for name in ("version", "months", "validators"))
        if not isinstance(version, str):
            return cls()
        return cls(
            version=version,
            months=months if isinstance(months, dict) else None,
            built_by=str(note.get("built_by", "")),
            definition=str(note.get("definition", "")),
            answers=_answers(answers if isinstance(answers, dict) else {}),
            source=str(note.get("source", "")),
        )

    def as_note(self) -> dict[str, Any]:
        """The note to keep with the relation: empty if it is not known what that holds."""
        if not self.version:
            return {}
        answers = {
            key: {
                "etag": known.validators.etag,
                "last_modified": known.validators.last_modified,
                "dated_by": known.dated_by,
            }
            for key, known in self.answers.items()
        }
        return {
            "version": self.version,
            **({} if self.months is None else {"months": dict(self.months)}),
            "built_by": self.built_by,
            "definition": self.definition,
            **({"source": self.source} if self.source else {}),
            "validators": {key: {k: v for k, v in kept.items() if v} for key, kept in answers.items()},
        }

    def within(self, table: RawTable, window: Window | None) -> str:
        """The version of its rows in the window; of all of them without one. Empty if it is not known."""
        if window is None or not table.event_time or not self.version:
            return self.version
        months = {day: version for day, version in (self.months or {}).items() if day in window}
        return "" if self.months is None else version_of(table.schema, months)

    def is_of(self, source: str) -> bool:
        """Whether all of its rows are known to be this source's."""
        return bool(self.version) and self.months is not None and self.source == source

    def with_answer(self, key: str, known: CachedResponse) -> "TableState":
        """The same rows, known to be this answer too."""
        others = {k: v for k, v in self.answers.items() if k != key}
        return replace(self, answers=answers_to_keep({**others, key: known}))


def merged(table: RawTable, held: TableState, window: Window, arrived: TableState) -> TableState:
    """What is held once the rows of the window are replaced by those that `arrived`.

    It is what a load of all these rows would give. Nobody knows it if nobody knows what was held: the
    months beside the window stay as they were.
    """
    if not held.version or held.months is None:
        return TableState()
    months = {day: version for day, version in held.months.items() if day not in window}
    months = dict(sorted({**months, **(arrived.months or {})}.items()))
    version = version_of(table.schema, months)
    # A load of some months leaves the table laid out as it was.
    return replace(arrived, version=version, months=months, definition=held.definition)


def answers_to_keep(answers: Mapping[str, CachedResponse]) -> Mapping[str, CachedResponse]:
    """Those that can be asked about, the last ones."""
    found = [(key, known) for key, known in answers.items() if known.validators]
    return dict(found[-ANSWERS_REMEMBERED:])


def version_of(schema: pa.Schema, months: Mapping[str, str]) -> str:
    """The version of rows of this schema whose months have these versions; a snapshot is one month, ""."""
    return digest(f"{schema.names} {schema.types} {sorted(months.items())}")


def definition_of(table: RawTable) -> str:
    """A version of the catalogue's entry: of all that says how an answer becomes a relation."""
    parent = (table.dated_by.parent.name, table.dated_by.column) if table.dated_by else ()
    columns = [(name, str(kind)) for name, kind in table.columns.items()]
    return digest(
        f"{columns} {table.key} {table.event_time} {parent} {table.clustered_by} {table.description}"
    )


def digest(text: str) -> str:
    """A short hash."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _answers(kept: Mapping[str, Any]) -> Mapping[str, CachedResponse]:
    found = {}
    for key, value in kept.items():
        if isinstance(value, dict):
            etag, modified, dated_by = (str(value.get(n, "")) for n in ("etag", "last_modified", "dated_by"))
            found[key] = CachedResponse(Validators(etag, modified), dated_by)
    return found
