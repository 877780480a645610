"""Why the forecast says what it says: its trend, week, year and holidays, each as a chart and a sentence."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np

from modal_forecast.calendars import MONTHS, WEEKDAYS, holiday_periods
from modal_forecast.diagnostics import listed
from modal_forecast.grain import DAY, Grain
from modal_forecast.report import formats
from modal_forecast.report.formats import Amounts
from modal_forecast.report.plots import Label, Plot, bar_plot, line_plot, spread_labels
from modal_forecast.report.sections import Table
from modal_forecast.report.values import PeriodValues, finite

FLAT = 0.02
HOLIDAYS_SHOWN = 8
MONTHS_LABELLED = {0: "start", 3: "middle", 6: "middle", 9: "middle", 11: "end"}


@dataclass(frozen=True)
class Reason:
    """plot: None where the table says it all, with a bar of `sizes` (-1..1) beside each of its rows.

    Without a table there is nothing but chance to show.
    """

    title: str
    answer: str
    plot: Plot | None = None
    table: Table | None = None
    sizes: tuple[float, ...] = ()


class UnitEffects:
    """Converts the effects of components, which may be factors, to the unit of the series.

    components: as modal_forecast.components.about_components() returns them.
    """

    def __init__(self, components: Mapping[str, Any]) -> None:
        self.is_factor = components["scale"] == "factor"
        self.trend = [
            (date.fromisoformat(f"{month:.7}-01"), float(level)) for month, level in components["trend"]
        ]

    def level(self, day: date) -> float:
        """The level of the month of a day; outside the trend, that of its first or its last month."""
        past = [level for month, level in self.trend if month <= day]
        return past[-1] if past else self.trend[0][1]

    def effect(self, effect: float | None, day: date) -> float | None:
        if effect is None or not self.is_factor:
            return effect
        return (effect - 1) * self.level(day)


def reasons(
    components: Mapping[str, Any] | None, forecast: PeriodValues, country: str | None, amounts: Amounts
) -> list[Reason]:
    """Return the reasons that there is something to say about; country: whose holidays were used."""
    if not components:
        return []
    effects, first, grain = UnitEffects(components), forecast.start, forecast.grain
    weekly = [
        # On a weekday that is closed, everything that a day brings is lost.
        -effects.level(first) if effect is None else effects.effect(effect, first)
        for effect in _in_order(components["weekly"], WEEKDAYS)
    ]
    yearly = [effects.effect(effect, first) for effect in _in_order(components["yearly"], MONTHS)]
    # Records of earlier versions do not say it: everything may.
    stands_out = components.get("stands_out") or {"weekly": WEEKDAYS, "yearly": MONTHS}
    every = [
        _trend(effects.trend, first, amounts, grain),
        _week(weekly, stands_out["weekly"], amounts),
        _year(yearly, stands_out["yearly"], amounts, grain),
        _holidays(components["holidays"], effects, forecast, country, amounts),
    ]
    return [reason for reason in every if reason]


def _trend(trend: Sequence[tuple[date, float]], first: date, amounts: Amounts, grain: Grain) -> Reason | None:
    if len(trend) < 2:
        return None
    months, levels = zip(*trend, strict=True)
    rows = tuple((f"{month:%b %Y}", amounts.exact(level)) for month, level in trend)
    return Reason(
        "Trend",
        trend_text(trend, first, amounts, grain),
        line_plot([("part", levels)], spread_labels(months, "%b %Y")),
        Table(f"A usual {grain.name}, by month", ("Month", f"Level of a {grain.name}"), rows),
    )


def trend_text(trend: Sequence[tuple[date, float]], first: date, amounts: Amounts, grain: Grain = DAY) -> str:
    """Compare the last month before the forecast with a year before it, or with the first month there is."""
    past = [point for point in trend if point[0] <= first] or [*trend]
    (last_month, level), (earlier_month, before) = past[-1], past[-13] if len(past) > 12 else past[0]
    months = (last_month.year - earlier_month.year) * 12 + last_month.month - earlier_month.month
    since = "a year ago" if months == 12 else f"in {earlier_month:%B %Y}"
    usual = f"sual {grain.name} now brings {amounts(level)}"
    if months < 1:
        return f"A u{usual}."
    if before > 0 and abs(level / before - 1) < FLAT:
        return f"Flat: a u{usual}, about as much as {since}."
    direction = "Rising" if level > before else "Falling"
    difference = (
        f", {formats.share(abs(level / before - 1))} {'more' if level > before else 'less'} than {since}"
    )
    step = amounts(abs(level - before) / months)
    speed = f"by about {step} a month. A u" if any(digit in "123456789" for digit in step) else "slowly: a u"
    return f"{direction} {speed}{usual}{difference if before > 0 else ''}."


def _week(effects: Sequence[float | None], stands_out: Collection[str], amounts: Amounts) -> Reason | None:
    by_day = _varying(effects)
    if not by_day:
        return None
    if not stands_out:
        return Reason("Week", "No weekday stands out.")
    amounts = amounts.of_effects(by_day)
    chance = [day for day in WEEKDAYS if day not in stands_out]
    pale = f" Pale: no more than chance explains ({listed(chance)})." if chance else ""
    return Reason(
        "Week",
        _extremes(by_day, WEEKDAYS, stands_out, "day", amounts) + pale,
        bar_plot(by_day, WEEKDAYS, [_bar_text(effect, amounts) for effect in by_day], chance),
        _effects_table("Effect of the weekday", "Weekday", WEEKDAYS, by_day, amounts, DAY),
    )


def _year(
    effects: Sequence[float | None], stands_out: Collection[str] | None, amounts: Amounts, grain: Grain
) -> Reason | None:
    """stands_out: None if the history is too short to tell."""
    by_month = _varying(effects)
    if not by_month:
        return None
    if stands_out is None:
        answer = "Not known yet: less than two years of history do not tell the time of year from the trend."
        return Reason("Year", answer)
    if not stands_out:
        return Reason("Year", "No time of the year stands out.")
    labels = [
        Label(round(month / 11 * 100, 1), MONTHS[month][:3], anchor)
        for month, anchor in MONTHS_LABELLED.items()
    ]
    amounts = amounts.of_effects(by_month)
    return Reason(
        "Year",
        _extremes(by_month, MONTHS, stands_out, "time", amounts),
        line_plot([("part", by_month)], labels),
        _effects_table("Effect of the time of year", "Time", MONTHS, by_month, amounts, grain),
    )


def _holidays(
    holidays: Sequence[Mapping[str, Any]],
    effects: UnitEffects,
    forecast: PeriodValues,
    country: str | None,
    amounts: Amounts,
) -> Reason | None:
    """The holidays among the periods of the forecast whose effect the history tells from chance."""
    grain = forecast.grain
    dates = holiday_periods(country, np.array(forecast.days(), "datetime64[D]"), grain)
    known = sorted(
        (day.astype(object), holiday["holiday"], float(holiday["day"]), holiday.get("supported", True))
        for holiday in holidays
        for day in dates.get(holiday["holiday"], ())
    )
    if not known:
        return None
    ahead = [
        (day, name, effect) for day, name, effect, supported in known if supported or forecast.at(day) == 0
    ]
    if not ahead:
        return Reason("Holidays", "No holiday ahead stands out.")
    rows = [
        # On a day that is closed, everything that a day brings is lost.
        (name, day, -effects.level(day) if forecast.at(day) == 0 else effects.effect(effect, day) or 0.0)
        for day, name, effect in ahead[:HOLIDAYS_SHOWN]
    ]
    more = len(ahead) - HOLIDAYS_SHOWN
    largest = max(abs(effect) for *_, effect in rows) or 1
    amounts = amounts.of_effects(effect for *_, effect in rows)
    name, day, effect = rows[0]
    when = f"{'on' if grain is DAY else 'in the'} {grain.label(day)}"
    answer = f"Next: {name} {when}, {amounts.signed(effect)} {grain.preposition} that {grain.name}."
    return Reason(
        "Holidays",
        answer + (f" {more:,} more follow." if more > 1 else ""),
        None,
        Table(
            "Holidays ahead",
            ("Holiday", grain.name.capitalize(), "Effect"),
            tuple((name, grain.label(day), amounts.signed(effect)) for name, day, effect in rows),
        ),
        tuple(round(effect / largest, 3) for *_, effect in rows),
    )


def _in_order(effects: Any, labels: Sequence[str]) -> list[float | None]:
    """Return the effects in the order of their labels.

    Records of earlier versions hold a mapping, whose keys a message has sorted; its months are numbers.
    """
    pairs = effects.items() if isinstance(effects, Mapping) else effects
    by_label = {str(label): effect for label, effect in pairs}
    return [by_label.get(label, by_label.get(str(number))) for number, label in enumerate(labels, 1)]


def _varying(effects: Sequence[float | None]) -> list[float]:
    """Return the effects; empty if one is unknown, or if all are the same."""
    numbers = [effect for effect in map(finite, effects) if effect is not None]
    return numbers if len(numbers) == len(effects) and max(numbers) > min(numbers) else []


def _extremes(
    effects: Sequence[float],
    names: Sequence[str],
    stands_out: Collection[str],
    kind: str,
    amounts: Amounts,
) -> str:
    """Saturday is the best day (+$310 against the average), Monday the weakest (-$120)."""
    best, worst = max(effects), min(effects)
    high, low = names[effects.index(best)], names[effects.index(worst)]
    is_best, is_worst = high in stands_out, low in stands_out
    best_text = f"{high} is the best {kind} ({amounts.signed(best)} against the average)"
    worst_text = f"({amounts.signed(worst)}{'' if is_best else ' against the average'})"
    if is_best and is_worst:
        return f"{best_text}, {low} the weakest {worst_text}."
    if is_best:
        return f"{best_text}."
    return f"{low} is the weakest {kind} {worst_text}."


def _bar_text(effect: float, amounts: Amounts) -> str:
    """+310 or -2.4: as in the sentence, without the unit; +12k where that is too long for a bar"""
    if abs(effect) >= 10_000:
        return ("+" if effect > 0 else "") + formats.compact(effect)
    return replace(amounts, unit="").signed(effect)


def _effects_table(
    caption: str,
    heading: str,
    names: Sequence[str],
    effects: Sequence[float],
    amounts: Amounts,
    grain: Grain,
) -> Table:
    rows = tuple((name, amounts.signed(effect)) for name, effect in zip(names, effects, strict=True))
    return Table(caption, (heading, f"Effect on a {grain.name}"), rows)
