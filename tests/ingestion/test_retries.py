"""What may pass is tried again after a growing pause, and after the one that a server asks for."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Event

import pytest

from serverless_assets.errors import UserError
from serverless_assets.ingestion.http import retry_after_seconds
from serverless_assets.ingestion.http_faults import call_with_retries

LONGEST_PAUSE_SECONDS = 20.0
DATE = "Fri, 27 Nov 2026 20:00:00 GMT"


class Busy(UserError):
    transient = True


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("0", "", 0.0),
        ("120", "", 120.0),
        (" 7 ", "", 7.0),
        ("1.5", "", 1.5),
        ("9" * 5000, "", float("inf")),
        ("Fri, 27 Nov 2026 20:01:30 GMT", DATE, 90.0),
        ("Friday, 27-Nov-26 20:01:30 GMT", DATE, 90.0),
        ("Fri Nov 27 20:01:30 2026", DATE, 90.0),
        ("Fri, 27 Nov 2026 20:01:30 -0000", DATE, 90.0),
        ("Fri, 27 Nov 2026 19:00:00 GMT", DATE, 0.0),
        ("Fri, 27 Nov 9999 20:00:00 GMT", DATE, pytest.approx(2.5e11, rel=0.1)),
        ("", "", None),
        ("-1", "", None),
        ("soon", "", None),
        ("1e3", "", None),
        ("nan", "", None),
        ("٣", "", None),
        (f"Fri, {'9' * 40} Nov 2026 20:00:00 GMT", DATE, None),
        ("Fri, 31 Feb 2026 20:00:00 GMT", DATE, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value, date, seconds):
    headers = {"Retry-After": value, "Date": date}
    assert retry_after_seconds(headers) == seconds


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_retry_after_date_is_compared_with_this_clock_if_the_server_tells_none(date):
    until = datetime.now(UTC) + timedelta(hours=1)
    seconds = retry_after_seconds({"Retry-After": format_datetime(until, usegmt=True), "Date": date})
    assert seconds == pytest.approx(3600, abs=60)


def pause_before(attempt: int, first_pause_seconds: float, retry_after: float | None = None) -> float:
    """The pause that is made before the attempt of this number; none of them is waited for."""
    pauses: list[float] = []

    class NoPause(Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            return False

    def busy() -> None:
        error = Busy("Busy.")
        error.retry_after = retry_after
        raise error

    with pytest.raises(Busy):
        call_with_retries(busy, attempt, first_pause_seconds, LONGEST_PAUSE_SECONDS, cancelled=NoPause())
    return pauses[-1]


def test_pauses_grow_by_chance_up_to_the_longest():
    pauses = [pause_before(attempt, 2.0) for attempt in (2, 3, 4, 5, 9)]
    assert all(least <= pause <= least + 2.0 for least, pause in zip([2, 4, 8, 16], pauses, strict=False))
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    assert len({pause_before(2, 2.0) for _ in range(20)}) > 1


@pytest.mark.parametrize(("asked", "least", "most"), [(0.0, 1.0, 2.0), (7.0, 7.0, 7.0), (1e9, 20.0, 20.0)])
def test_pause_is_at_least_what_the_server_asks_for_and_at_most_the_longest(asked, least, most):
    assert least <= pause_before(2, 1.0, asked) <= most


def test_what_cannot_pass_is_tried_once():
    attempts = []

    def refuse() -> None:
        attempts.append(1)
        raise UserError("No.")

    with pytest.raises(UserError):
        call_with_retries(refuse, 5, 0.0)
    assert len(attempts) == 1
