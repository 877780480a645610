"""How good the forecasts were that people have seen: each against the days that have come since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modal_forecast.report import formats
from modal_forecast.report.compared import Compared, compared
from modal_forecast.report.figures import Table, a_day, figure, weighted
from modal_forecast.report.formats import Amounts
from modal_forecast.report.sureness import bias_words

SHOWN = 12
NOTHING_YET = "Nothing to compare yet: no day of an earlier forecast has come and been counted."
HEADINGS = ("Made on", "Days scored", "Typical error", "On the whole", "Inside 80%", "Inside 95%")


@dataclass(frozen=True)
class TrackRecord:
    answer: str
    table: Table | None = None
    earlier: str = ""
    compared: Compared | None = None
    compared_title: str = ""


def track_record(accuracy: Mapping[str, Any] | None, amounts: Amounts) -> TrackRecord | None:
    """None if nobody has looked; with an answer but no table if nothing has come yet."""
    if accuracy is None:
        return None
    vintages = [vintage for vintage in accuracy.get("vintages") or () if vintage.get("days")]
    if not vintages:
        return TrackRecord(NOTHING_YET)
    vintages = sorted(vintages, key=lambda vintage: a_day(vintage["made_on"]), reverse=True)
    left_out = len(vintages) - SHOWN
    one = accuracy.get("compared") or {}
    made_on = f" made on {formats.day(a_day(one['made_on']))}" if one.get("made_on") else ""
    title = f"The forecast{made_on}, against what came"
    return TrackRecord(
        answer=_answer(vintages),
        table=Table("Earlier forecasts", HEADINGS, tuple(_row(vintage) for vintage in vintages[:SHOWN])),
        earlier=f"{formats.counted(left_out, 'older forecast')} not shown." if left_out > 0 else "",
        compared=compared(one, title, amounts),
        compared_title=title,
    )


def _answer(vintages: Sequence[Mapping[str, Any]]) -> str:
    error, inside = (
        weighted([(figure(vintage, name), vintage["days"]) for vintage in vintages])
        for name in ("wape", "coverage_80")
    )
    made = formats.counted(len(vintages), "earlier forecast")
    return (
        f"{made[0].upper()}{made[1:]}, scored on {formats.days(sum(v['days'] for v in vintages))} in all: "
        f"a day was off by {formats.share(error)}, and {formats.share(inside)} fell inside the 80% bounds."
    )


def _row(vintage: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        formats.day(a_day(vintage["made_on"])),
        f"{vintage['days']:,}",
        formats.share(figure(vintage, "wape")),
        bias_words(figure(vintage, "bias")).removesuffix(" on the whole") or formats.UNKNOWN,
        formats.share(figure(vintage, "coverage_80")),
        formats.share(figure(vintage, "coverage_95")),
    )
