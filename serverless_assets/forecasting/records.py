"""The records of an artifact store: which there are, and the one that a person means."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serverless_assets.artifacts import Artifacts
from serverless_assets.forecasting.record import PREFIX, Record, RecordError, RecordName

NAMED_AT_MOST = 10


def recorded(artifacts: Artifacts) -> Sequence[RecordName]:
    """The names of all records, the oldest first.

    Raises:
        ArtifactError: they cannot be listed.
    """
    found = [RecordName.parse(name) for name in artifacts.names(PREFIX)]
    return [name for name in found if name]


def read_record(artifacts: Artifacts, name: RecordName) -> Record:
    """Raises RecordError if it is not a record that can be read, ArtifactError if the store refuses."""
    content = artifacts.read(str(name))
    try:
        if content is None:
            raise RecordError("it is gone")
        return Record.from_bytes(content)
    except RecordError as error:
        raise RecordError(f"The record {name}: {error}.") from None


def details_of(artifacts: Artifacts, facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The details of the forecast of these facts; empty if there is no record of it.

    Raises:
        ArtifactError: the store refuses.
    """
    name = RecordName.of(facts)
    try:
        return read_record(artifacts, name).details if name else {}
    except RecordError:
        return {}


def meant(names: Sequence[RecordName], which: str | None) -> RecordName:
    """The newest record of a run (its id or its beginning), of a key, or of a day; of all if None. Pure.

    Raises:
        RecordError: there is none, or there are several runs of that beginning.
    """
    if not names:
        raise RecordError("No forecast was published with a record yet: run serverless_pipeline first.")
    if which is None:
        return names[-1]
    exactly = [name for name in names if which in (name.key, f"{name.made_at:%Y-%m-%d}", name.run_id)]
    found = exactly or [name for name in names if which and name.run_id.startswith(which)]
    if exactly or len(found) == 1:
        return found[-1]
    problem = f"Several runs begin with {which!r}." if found else f"There is no forecast {which!r}."
    raise RecordError("\n".join([f"{problem} There are:", *_named(found or names)]))


def _named(names: Sequence[RecordName]) -> Iterator[str]:
    for name in reversed(names[-NAMED_AT_MOST:]):
        yield f"  {name.made_at:%Y-%m-%d %H:%M} UTC, run {name.run_id}, key {name.key}"
    if len(names) > NAMED_AT_MOST:
        yield f"  and {len(names) - NAMED_AT_MOST} older ones: serverless replay --list"
