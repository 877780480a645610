"""Errors as sentences for people: what a user caused, what the machine refused, and unexpected errors."""

import errno
import re
import sqlite3
from collections.abc import Iterator


class UserError(Exception):
    """An error whose message is for a person: what was wrong, where, and what to do next.

    `transient`: the same, tried again in a while, may succeed. `retry_after`: the seconds that a server asked
    to wait before that.
    """

    transient = False
    retry_after: float | None = None

    def __init__(self, message: str, transient: bool | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        if transient is not None:
            self.transient = transient
        self.retry_after = retry_after


_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)
_SQLITE = {
    "full": "The disk that holds Dagster's history is full: free space there, then run again.",
    # SQLite also says so of a disk that became full while it wrote its journal.
    "disk I/O error": "Dagster's history cannot be read or written: the disk is full or fails. Free space "
    "there, then run again.",
    "readonly": "Dagster's history cannot be written: make DAGSTER_HOME writable for this user.",
    "unable to open": "Dagster's history cannot be opened: DAGSTER_HOME must be writable for this user.",
    "not a database": "Dagster's history is damaged: move the folder DAGSTER_HOME away, then run again.",
    "malformed": "Dagster's history is damaged: move the folder DAGSTER_HOME away, then run again.",
    "no such table": "Dagster's history is damaged: move the folder DAGSTER_HOME away, then run again.",
    "locked": "Dagster's history is locked by another process: wait for it to end, then run again.",
}


def error_sentence(error: BaseException) -> str:
    """Return an error's message if it is for a person; else one line: what the machine refused and what to do
    about it, or the error's class and the first line of its message."""
    if isinstance(error, UserError):
        return str(error)
    for cause in causes(error):
        if sentence := _of_machine(cause):
            return sentence
    first, *_ = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def machine_sentence(text: str) -> str | None:
    """Return what an error of the machine means and what to do about it; None for any other error.

    Args:
        text: its class and message, which is all that Dagster records of an error.
    """
    if matched := re.search(r"\[Errno (\d+)\] ([^:]+)(?:: '(.+)')?$", text):
        return _of_machine(OSError(int(matched[1]), matched[2], matched[3]))
    return _of_machine(sqlite3.OperationalError(text)) if "sqlite3." in text else None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and those that caused it, the outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _of_machine(error: BaseException) -> str | None:
    """What a full disk, missing permissions or a damaged history mean, and what to do about them."""
    if isinstance(error, sqlite3.Error):
        return next((sentence for words, sentence in _SQLITE.items() if words in str(error)), None)
    if not isinstance(error, OSError) or error.errno is None or error.strerror is None:
        return None
    place = f" at {error.filename}" if error.filename else ""
    if error.errno in _FULL:
        return f"The disk is full{place}: {error.strerror}. Free space there, then run again."
    if error.errno in _DENIED:
        return (
            f"This user may not use the file or folder{place}: {error.strerror}. Change its owner or its "
            "permissions, or choose another folder with SERVERLESS_HOME."
        )
    if not place:
        return None
    return (
        f"The file or folder{place} cannot be used: {error.strerror}. If it is SERVERLESS_HOME, or in there, "
        "choose another folder for that."
    )
