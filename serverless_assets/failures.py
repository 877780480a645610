"""Failures as Dagster shows them: a sentence for a person, tried again only if that may help."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import TracebackException

import dagster as dg

from serverless_assets.dagster_internals import DagsterUserCodeProcessError, SerializableErrorInfo
from serverless_assets.errors import UserError

# Clients have repeated a request for half a minute before a step fails: these are for outages of minutes.
RETRIES = 2
FIRST_PAUSE_SECONDS = 20.0


class RunFailure(DagsterUserCodeProcessError):
    """A run that cannot begin or be published: one sentence, and the traceback of an unexpected cause.

    Dagster shows errors of this class as they are, and others below several errors of its own.
    """

    def __init__(self, sentence: str, cause: Exception | None = None) -> None:
        caused_by = (
            SerializableErrorInfo.from_traceback(TracebackException.from_exception(cause)) if cause else None
        )
        sentence_alone = SerializableErrorInfo(sentence, [], RunFailure.__name__, caused_by)
        super().__init__(sentence, user_code_process_error_infos=[sentence_alone])


@contextmanager
def as_failure(*others: type[Exception]) -> Iterator[None]:
    """Turn a `UserError`, or one of `others`, into the `dagster.Failure` of the same words.

    In a step, what may pass is tried again a little later. (With a `RetryPolicy` Dagster would also try
    again what a person has cancelled, and what is a fault of the code.)
    """
    caught: tuple[type[Exception], ...] = (UserError, *others)
    try:
        yield
    except caught as error:
        failure = dg.Failure(str(error), allow_retries=False)
        if isinstance(error, UserError) and error.transient:
            pause = seconds_to_wait(dg.OpExecutionContext.get().retry_number, random.random())
            raise dg.RetryRequested(RETRIES, pause) from failure
        raise failure from None


def seconds_to_wait(attempts_before: int, chance: float) -> float:
    """Return the pause before the next attempt: twice as long each time, and longer by up to half.

    Args:
        chance: a random number from 0 to 1, so that runs that failed together do not come back together.
    """
    return float(FIRST_PAUSE_SECONDS * 2**attempts_before * (1 + chance / 2))
