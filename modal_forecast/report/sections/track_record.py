"""How accurate earlier forecasts turned out to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from modal_forecast.grain import DAY, Grain
from modal_forecast.report import formats
from modal_forecast.report.formats import Amounts
from modal_forecast.report.sections import Table
from modal_forecast.report.sections.accuracy import Comparison, bias_text, compare
from modal_forecast.report.values import number_in, weighted_mean

VINTAGES_SHOWN = 12
SCORE_HEADINGS = ("Typical error", "On the whole", "Inside 80%", "Inside 95%")
NO_TRACK_RECORD = "Nothing to compare yet: no {} of an earlier forecast has come and been counted."


@dataclass(frozen=True)
class TrackRecord:
    answer: str
    table: Table | None = None
    earlier: str = ""
    comparison: Comparison | None = None
    worst_parts: Table | None = None


def track_record(
    record: Mapping[str, Any] | None, amounts: Amounts, part_noun: str = "part", grain: Grain = DAY
) -> TrackRecord | None:
    """Return how earlier forecasts did, see ReportInput.track_record; None if there was none."""
    if record is None:
        return None
    vintages = sorted(
        (vintage for vintage in record.get("vintages") or () if vintage.get("periods")),
        key=lambda vintage: date.fromisoformat(vintage["made_on"]),
        reverse=True,
    )
    if not vintages:
        return TrackRecord(NO_TRACK_RECORD.format(grain.name))
    comparison, compared = None, record.get("compared")
    if compared and compared["ds"]:
        title = f"The forecast made on {_day(compared['made_on'])}, against what came"
        columns = [compared[name] for name in ("actual", "yhat", "lower_80", "upper_80")]
        days = [date.fromisoformat(day) for day in compared["ds"]]
        comparison = compare(days, columns, title, title, amounts, grain)
    error, inside = (
        weighted_mean([(number_in(vintage, name), vintage["periods"]) for vintage in vintages])
        for name in ("wape", "coverage_80")
    )
    left_out = len(vintages) - VINTAGES_SHOWN
    return TrackRecord(
        answer=f"{formats.counted(len(vintages), 'earlier forecast')}, scored on "
        f"{grain.counted(sum(vintage['periods'] for vintage in vintages))} in all: a {grain.name} was off by "
        f"{formats.share(error)}, and {formats.share(inside)} fell inside the 80% bounds.",
        table=Table(
            "Earlier forecasts",
            ("Made on", f"{grain.plural.capitalize()} scored", *SCORE_HEADINGS),
            tuple(
                (_day(vintage["made_on"]), f"{vintage['periods']:,}", *_scores(vintage))
                for vintage in vintages[:VINTAGES_SHOWN]
            ),
        ),
        earlier=f"{formats.counted(left_out, 'older forecast')} not shown." if left_out > 0 else "",
        comparison=comparison,
        worst_parts=_worst_parts(record.get("parts"), part_noun, grain),
    )


def _worst_parts(parts: Mapping[str, Any] | None, noun: str, grain: Grain) -> Table | None:
    """Return the parts that were forecast worst, in the order that they come in; None without any."""
    if not parts or not parts["worst"]:
        return None
    count, scored = len(parts["worst"]), parts["scored"]
    before = "the week" if grain is DAY else grain.counted(grain.season)
    of_all = f"The {count} worst of {formats.counted(scored, noun)}" if count < scored else "The worst first"
    return Table(
        f"Each {noun}: {of_all[0].lower()}{of_all[1:]}",
        (noun.capitalize(), f"Error (1 = repeating {before} before)", *SCORE_HEADINGS),
        tuple(
            (str(part["name"]), formats.number(number_in(part, "mase"), 2), *_scores(part))
            for part in parts["worst"]
        ),
    )


def _scores(scored: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells below SCORE_HEADINGS."""
    return (
        formats.share(number_in(scored, "wape")),
        bias_text(number_in(scored, "bias")).removesuffix(" on the whole") or formats.UNKNOWN,
        formats.share(number_in(scored, "coverage_80")),
        formats.share(number_in(scored, "coverage_95")),
    )


def _day(iso_date: str) -> str:
    return formats.day(date.fromisoformat(iso_date))
