"""What the source says its tables and months are now, asked without downloading any of it."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from threading import Event

from serverless_assets.ingestion.download import TableSource
from serverless_assets.ingestion.interruptible import map_in_threads
from serverless_assets.ingestion.tables import Table
from serverless_assets.ingestion.validators import Validators
from serverless_assets.ingestion.window import Window

# A tick has a minute for all of it: a source that hesitates is asked again at the next.
ATTEMPTS, TIMEOUT_SECONDS, PAUSE_SECONDS = 3, 5.0, 0.2
AT_A_TIME = 8


@dataclass(frozen=True, order=True)
class Question:
    """A table, or a month of it, that the source is asked about."""

    table: str
    month: date | None = None

    def __str__(self) -> str:
        return f"{self.table}/{self.month:%Y-%m}" if self.month else self.table

    @classmethod
    def of(cls, text: str) -> "Question":
        """The one that was written as `text`."""
        table, slash, month = text.partition("/")
        return cls(table, date.fromisoformat(f"{month}-01") if slash else None)


# A short name for what the source answered, the same as long as its validators are. No name: it gave none.
Marks = Mapping[Question, str]


def ask(source: TableSource, questions: Iterable[Question]) -> Marks:
    """The mark of every answer that has one.

    Raises:
        SourceError: of the first question that was not answered.
    """
    hasty = replace(
        source,
        attempts=ATTEMPTS,
        timeout_seconds=TIMEOUT_SECONDS,
        first_pause_seconds=PAUSE_SECONDS,
        longest_pause_seconds=PAUSE_SECONDS,
        cancelled=Event(),
    )

    def mark(question: Question) -> str:
        month = question.month
        window = Window.of_months(month, month) if month else None
        return _mark(hasty.validators(question.table, window))

    asked = list(questions)
    try:
        found = map_in_threads(mark, asked, AT_A_TIME)
    finally:
        # After one that failed, the others need not be waited for.
        hasty.cancelled.set()
    return {question: name for question, name in zip(asked, found, strict=True) if name}


def of_tables(tables: Sequence[Table]) -> list[Question]:
    """The question about each table as a whole."""
    return [Question(table.name) for table in tables]


def of_months(table: Table, months: Iterable[date]) -> list[Question]:
    """The question about each month of a fact."""
    return [Question(table.name, month) for month in months]


def _mark(validators: Validators) -> str:
    if not validators:
        return ""
    words = f"{validators.etag}\n{validators.last_modified}"
    return hashlib.sha256(words.encode()).hexdigest()[:16]
