"""Why the forecast says what it says: its trend, week, year and holidays, each as chart and sentence."""

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from modal_forecast.report import formats
from modal_forecast.report.figures import Table, a_day, figure, finite
from modal_forecast.report.formats import Amounts
from modal_forecast.report.plots import Label, Plot, bar_plot, line_plot, spread_labels

FLAT = 0.02
HOLIDAYS_SHOWN = 8
WEEKDAYS = [*calendar.day_name]
MONTHS = [*calendar.month_name][1:]
A_LEAP_YEAR = 2024


@dataclass(frozen=True)
class Reason:
    """plot: None for a reason that is told in its table alone, with a bar of `sizes` (-1..1) for each row."""

    title: str
    answer: str
    plot: Plot | None
    table: Table
    sizes: tuple[float, ...] = ()


def reasons(
    components: Mapping[str, Any] | None, first: date, last: date, amounts: Amounts
) -> tuple[Reason, ...]:
    """Those that there is something to say of; first, last: day of the forecast."""
    of = components or {}
    found = (
        _trend(of.get("trend") or (), first, amounts),
        _week([*(of.get("weekly") or ())], amounts),
        _year([*(of.get("yearly") or ())], amounts),
        _holidays(of.get("holidays") or (), first, last, amounts),
    )
    return tuple(reason for reason in found if reason)


def _trend(points: Sequence[Mapping[str, Any]], first: date, amounts: Amounts) -> Reason | None:
    by_month = sorted((a_day(p["ds"]), v) for p in points if (v := figure(p, "value")) is not None)
    if len(by_month) < 2:
        return None
    months, values = [day for day, _ in by_month], [value for _, value in by_month]
    rows = tuple((f"{day:%b %Y}", amounts.exact(value)) for day, value in by_month)
    return Reason(
        "Trend",
        trend_words(by_month, first, amounts),
        line_plot([("part", values)], spread_labels(months, "%b %Y")),
        Table("A usual day, by month", ("Month", "Level of a day"), rows),
    )


def trend_words(by_month: Sequence[tuple[date, float]], first: date, amounts: Amounts) -> str:
    """How the last month before the forecast compares with a year before it, or with the first there is."""
    past = [point for point in by_month if point[0] <= first] or [*by_month]
    (now, level), (then, before) = past[-1], past[-13] if len(past) > 12 else past[0]
    months = (now.year - then.year) * 12 + now.month - then.month
    since = "a year ago" if months == 12 else f"in {then:%B %Y}"
    usual = f"A usual day now brings {amounts(level)}"
    if months < 1:
        return f"{usual}."
    if before > 0 and abs(level / before - 1) < FLAT:
        return f"Flat: {usual[0].lower()}{usual[1:]}, about as much as {since}."
    direction = "Rising" if level > before else "Falling"
    change = f", {formats.share(abs(level / before - 1))} {'more' if level > before else 'less'} than {since}"
    step = amounts(abs(level - before) / months)
    return f"{direction} by about {step} a month. {usual}{change if before > 0 else ''}."


def _week(effects: list[float], amounts: Amounts) -> Reason | None:
    if len(effects) != 7 or not _vary(effects):
        return None
    return Reason(
        "Week",
        _extremes(effects, WEEKDAYS, "day", amounts),
        bar_plot(effects, [name[:3] for name in WEEKDAYS]),
        _effects_table("Effect of the weekday", "Weekday", WEEKDAYS, effects, amounts),
    )


def _year(effects: list[float], amounts: Amounts) -> Reason | None:
    if len(effects) < 12 or not _vary(effects):
        return None
    if len(effects) == 12:
        names = MONTHS
        labels = [Label(round(month / 11 * 100, 1), MONTHS[month][:3]) for month in (0, 3, 6, 9, 11)]
    else:
        days = [date(A_LEAP_YEAR, 1, 1) + timedelta(weeks=week, days=3) for week in range(len(effects))]
        names = [f"the week of {day.day} {day:%b}" for day in days]
        labels = [Label(round(month / 12 * 100, 1), MONTHS[month][:3]) for month in (0, 3, 6, 9)]
    labels = [Label(at.x, at.text, {0: "start", 100: "end"}.get(int(at.x), "middle")) for at in labels]
    return Reason(
        "Year",
        _extremes(effects, names, "time", amounts),
        line_plot([("part", effects)], labels),
        _effects_table("Effect of the time of year", "Time", names, effects, amounts),
    )


def _holidays(
    holidays: Sequence[Mapping[str, Any]], first: date, last: date, amounts: Amounts
) -> Reason | None:
    known = [(a_day(h["ds"]), str(h["name"]), finite(h.get("effect"))) for h in holidays]
    ahead = sorted((h for h in known if first <= h[0] <= last), key=lambda holiday: holiday[:2])
    if not ahead:
        return None
    shown, more = ahead[:HOLIDAYS_SHOWN], len(ahead) - HOLIDAYS_SHOWN
    largest = max(abs(effect or 0) for *_, effect in shown) or 1
    day, name, effect = shown[0]
    answer = f"Next: {name} on {formats.day(day)}, {amounts.signed(effect)} on that day."
    return Reason(
        "Holidays",
        answer + (f" {formats.counted(more, 'more')[:-1]} follow." if more > 1 else ""),
        None,
        Table(
            "Holidays ahead",
            ("Holiday", "Day", "Effect"),
            tuple((name, formats.day(day), amounts.signed(effect)) for day, name, effect in shown),
        ),
        tuple(round((effect or 0) / largest, 3) for *_, effect in shown),
    )


def _vary(effects: Sequence[float]) -> bool:
    return all(finite(effect) is not None for effect in effects) and max(effects) > min(effects)


def _extremes(effects: Sequence[float], names: Sequence[str], kind: str, amounts: Amounts) -> str:
    best, worst = max(effects), min(effects)
    high, low = names[[*effects].index(best)], names[[*effects].index(worst)]
    return (
        f"{high[0].upper()}{high[1:]} is the best {kind} ({amounts.signed(best)} on a usual day), "
        f"{low} the weakest ({amounts.signed(worst)})."
    )


def _effects_table(
    caption: str, heading: str, names: Sequence[str], effects: Sequence[float], amounts: Amounts
) -> Table:
    rows = tuple((name, amounts.signed(effect)) for name, effect in zip(names, effects, strict=True))
    return Table(caption, (heading, "Effect on a day"), rows)
