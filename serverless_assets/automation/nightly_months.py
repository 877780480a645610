"""Which months `nightly_refresh` loads. Pure."""

from datetime import UTC, date, datetime, timedelta


def months_to_load(now: datetime, last_loaded: date | None, first_month: date) -> tuple[date, date] | None:
    """The first and last month: from the last one that was loaded, or else yesterday's, to the current one.

    So neither the last day of a month nor nights that were missed are lost. None: nothing was loaded yet, and
    the whole history is to be. Months begin in UTC, as partitions do, wherever the schedule's clock hangs.
    """
    today = now.astimezone(UTC).date()
    current = today.replace(day=1)
    if last_loaded is None or current < first_month:
        return None
    yesterday = (today - timedelta(days=1)).replace(day=1)
    return max(min(yesterday, last_loaded), first_month.replace(day=1)), current
