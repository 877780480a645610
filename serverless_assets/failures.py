"""Failures as Dagster shows them: a sentence for a person, no traceback, and no retry in vain."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from serverless_assets.errors import ToldError


@contextmanager
def in_words(*others: type[Exception]) -> Iterator[None]:
    """Turn a `ToldError`, or one of `others`, into the `dagster.Failure` of the same words."""
    caught: tuple[type[Exception], ...] = (ToldError, *others)
    try:
        yield
    except caught as error:
        raise dg.Failure(str(error), allow_retries=False) from None
