"""When a failed request is made again: what may pass is, after a growing random pause."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_after_attempt, stop_before_delay, stop_when_event_set
from tenacity.wait import wait_exponential_jitter

from serverless_assets.errors import UserError

# A server may ask for any pause; a run should not sleep for an hour because of one header.
LONGEST_PAUSE_SECONDS = 60.0

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RetryPolicy:
    """How often to try, and how long to wait in between.

    The pause doubles from `first_pause_seconds` on, with up to `first_pause_seconds` more by chance. It is
    at least what the server asks for, and at most `longest_pause_seconds`. No attempt begins later than
    `deadline_seconds` after the first. Setting `cancelled` ends a pause and prevents another attempt.
    """

    attempts: int
    first_pause_seconds: float
    longest_pause_seconds: float = LONGEST_PAUSE_SECONDS
    deadline_seconds: float = math.inf
    cancelled: Event = field(default_factory=Event)

    def call(self, attempt: Callable[[], Answer], log: Callable[[str], None] = lambda line: None) -> Answer:
        """The result of `attempt`, made again after a `UserError` that may pass; the last one is raised.

        log: takes a line before each pause.
        """
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, UserError) and error.transient),
            stop=stop_after_attempt(self.attempts)
            | stop_when_event_set(self.cancelled)
            | stop_before_delay(self.deadline_seconds),
            sleep=sleep_using_event(self.cancelled),
            wait=self._pause,
            before_sleep=lambda state: log(self._message(state)),
            reraise=True,
        )
        return retrying(attempt)

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, UserError) else None
        backoff = wait_exponential_jitter(
            initial=self.first_pause_seconds, max=self.longest_pause_seconds, jitter=self.first_pause_seconds
        )
        return max(backoff(state), min(asked or 0.0, self.longest_pause_seconds))

    def _message(self, state: RetryCallState) -> str:
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        return f"{error} Attempt {state.attempt_number} of {self.attempts}; asking again in {pause:.1f} s."


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """The pause that an answer's Retry-After asks for, as seconds or as a date; None if it asks for none.

    A date is compared with the server's own clock where the answer tells it.
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return float(value)
    until = _http_date(value)
    if until is None:
        return None
    now = _http_date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    # "-0000", a time zone that is not known, is read without one: HTTP's dates are in GMT.
    return date if date.tzinfo else date.replace(tzinfo=UTC)
