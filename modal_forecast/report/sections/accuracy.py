"""How accurate the forecast was in its back-test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from modal_forecast.backtest import NAIVE_MEANING
from modal_forecast.candidates import METHODS
from modal_forecast.grain import DAY, Grain
from modal_forecast.report import formats
from modal_forecast.report.formats import Amounts
from modal_forecast.report.plots import Plot, line_plot, spread_labels
from modal_forecast.report.sections import Card, Table
from modal_forecast.report.values import finite, number_in, total

# Share of the promised days outside the bounds by which the actual share may differ: a back-test of some 150
# days can hardly tell a smaller difference from chance.
COVERAGE_TOLERANCE = 1 / 3
# A bias above this share of the actuals is said first: it does not cancel out over days.
LARGE_BIAS = 0.05
AS_PROMISED = "about as many as promised"


@dataclass(frozen=True)
class Comparison:
    """A forecast beside the actuals of its days."""

    title: str
    summary: str
    plot: Plot
    table: Table


@dataclass(frozen=True)
class Accuracy:
    """warning: set if the forecast does not beat the seasonal naive, else ""; bias: set if it is large."""

    answer: str
    warning: str
    bias: str
    cards: tuple[Card, ...]
    models: Table
    last_origin: Comparison | None


def accuracy(diagnostics: Mapping[str, Any], amounts: Amounts, grain: Grain = DAY) -> Accuracy | None:
    """Return what the back-test says; None if there was none."""
    backtest = diagnostics.get("backtest") or {}
    if not backtest.get("origins"):
        return None
    skill, repeating = skill_sentence(diagnostics), _naive_name(diagnostics)
    warning = (
        ""
        if diagnostics["beats_naive"]
        else f"In the back-test this forecast did not beat {repeating}. {skill} Do not rely on it alone."
    )
    times = "once" if backtest["origins"] == 1 else f"{backtest['origins']} times"
    method = (
        f"To find out, it was made {times} as if {grain.preposition} a {grain.name} in the past, each "
        f"{grain.counted(backtest['horizon'])} ahead, and compared with what came."
    )
    comparison, origin = None, diagnostics.get("last_origin")
    if origin:
        first, forecast = date.fromisoformat(origin["first_ds"]), origin["forecast"]
        comparison = compare(
            [grain.start(first, index) for index in range(len(forecast))],
            [origin["actual"], forecast, origin.get("lower_80", forecast), origin.get("upper_80", forecast)],
            "The back-test: forecast against what came"
            if backtest["origins"] == 1
            else f"The last of {backtest['origins']} back-tests: forecast against what came",
            f"The last back-test, {grain.name} by {grain.name}",
            amounts,
            grain,
        )
    bias = _bias_sentence(backtest)
    answer = " ".join(filter(None, (bias, _errors_sentence(backtest, grain), skill, method)))
    return Accuracy(answer, warning, bias, _cards(diagnostics, grain), _models(diagnostics), comparison)


def _bias_sentence(backtest: Mapping[str, Any]) -> str:
    """Over all 6 back-tests, the forecast was 11% too low on the whole.; empty if the bias is small"""
    bias = number_in(backtest, "bias")
    if bias is None or abs(bias) < LARGE_BIAS:
        return ""
    count = backtest["origins"]
    tests = "In the back-test" if count == 1 else f"Over all {count} back-tests"
    return f"{tests}, the forecast was {bias_text(bias)}."


def _errors_sentence(backtest: Mapping[str, Any], grain: Grain) -> str:
    """It is off by 13% on a typical day, and by 5% over 30 days.; empty if the error is unknown"""
    error = number_in(backtest, "wape")
    if error is None:
        return ""
    main = grain.windows[1]
    over_main = number_in((backtest.get("sums") or {}).get(str(main)), "error")
    over = "" if over_main is None else f", and by {formats.share(over_main)} over {grain.counted(main)}"
    return f"It is off by {formats.share(error)} {grain.preposition} a typical {grain.name}{over}."


def skill_sentence(diagnostics: Mapping[str, Any]) -> str:
    """It errs 28% less than repeating last year's same days."""
    skill, repeating = diagnostics["skill"], _naive_name(diagnostics)
    if abs(skill) < formats.NEGLIGIBLE:
        return f"It errs about as much as {repeating}."
    return f"It errs {formats.share(abs(skill))} {'less' if skill > 0 else 'more'} than {repeating}."


def _naive_name(diagnostics: Mapping[str, Any]) -> str:
    return f"repeating {NAIVE_MEANING[diagnostics['best_naive']]}"


def _cards(diagnostics: Mapping[str, Any], grain: Grain) -> tuple[Card, ...]:
    """Cards for the coverage of the bounds and for the errors; one whose number is unknown is left out."""
    backtest, naive = diagnostics["backtest"], diagnostics["candidates"].get(diagnostics["best_naive"])
    bias = number_in(backtest, "bias")
    cards = []
    for level in (80, 95):
        inside = number_in(backtest, f"coverage_{level}")
        if inside is not None:
            verdict = judge_coverage(inside, level / 100)
            if verdict == AS_PROMISED and bias is not None and abs(bias) >= LARGE_BIAS:
                verdict += f", though the forecast was too {'high' if bias > 0 else 'low'} on the whole"
            cards.append(
                Card(
                    f"{grain.plural.capitalize()} inside the {level}% bounds",
                    formats.share(inside),
                    "",
                    (verdict,),
                )
            )
    error = number_in(backtest, "wape")
    if error is not None:
        cards.append(Card(f"Typical error of a {grain.name}", formats.share(error), "", (bias_text(bias),)))
    error = number_in(naive, "wape")
    if error is not None:
        beside = (f"when {_naive_name(diagnostics)}",)
        cards.append(Card("Error of a naive forecast", formats.share(error), "", beside))
    return tuple(cards)


def judge_coverage(inside: float, promised: float) -> str:
    if abs(inside - promised) <= COVERAGE_TOLERANCE * (1 - promised):
        return AS_PROMISED
    if inside < promised:
        return "fewer than promised: expect more surprises than the bounds say"
    return "more than promised: the bounds are wider than needed"


def bias_text(bias: float | None) -> str:
    if bias is None:
        return ""
    if abs(bias) < formats.NEGLIGIBLE:
        return "about right on the whole"
    return f"{formats.share(abs(bias))} too {'high' if bias > 0 else 'low'} on the whole"


def _models(diagnostics: Mapping[str, Any]) -> Table:
    """The candidates by their share of the forecast, with errors relative to the better seasonal naive."""
    candidates = diagnostics["candidates"]
    naive_error = number_in(candidates.get(diagnostics["best_naive"]), "mase")

    def error(scores: Mapping[str, Any]) -> str:
        mase = number_in(scores, "mase")
        return formats.number(mase / naive_error if mase is not None and naive_error else mase, 2)

    ranked = sorted(candidates.items(), key=lambda item: (-(item[1].get("weight") or 0), item[0]))
    rows = [
        (
            METHODS.get(name) or name.replace("_", " ").capitalize(),
            formats.share(number_in(scores, "weight")),
            error(scores),
        )
        for name, scores in ranked
    ]
    unit = f"1 = {_naive_name(diagnostics)}"
    return Table(
        "Methods that were tried",
        ("Method", "Share of the forecast", f"Error ({unit})" if naive_error else "Error (MASE)"),
        (("All together", formats.share(1.0), error(diagnostics["backtest"])), *rows),
    )


def compare(
    days: Sequence[date],
    columns: Sequence[Sequence[float | None]],
    title: str,
    caption: str,
    amounts: Amounts,
    grain: Grain = DAY,
) -> Comparison:
    """Return a plot, a table and a summary of a forecast beside the actuals.

    columns: actual, forecast, and its lower and upper 80% bounds, as long as `days`.
    """
    actual, forecast, lower, upper = ([finite(value) for value in column] for column in columns)
    rows = zip(days, actual, forecast, lower, upper, strict=True)
    complete = [
        (value, expected, low, high)
        for value, expected, low, high in zip(actual, forecast, lower, upper, strict=True)
        if value is not None and expected is not None and low is not None and high is not None
    ]
    summary = f"None of its {grain.plural} has come yet."
    if complete:
        inside = sum(low <= value <= high for value, _, low, high in complete)
        sums = [total(row[column] for row in complete) for column in (0, 1)]
        came, forecast_sum = map(amounts.of_one_precision(sums), sums)
        summary = (
            f"Over {grain.counted(len(complete))}, {came} came and {forecast_sum} was forecast; "
            f"{inside} of {len(complete)} fell inside the 80% bounds."
        )
    return Comparison(
        title,
        summary,
        line_plot(
            [("forecast", forecast), ("actual", actual)],
            spread_labels(days, grain.axis_format),
            [("interval80", lower, upper)],
        ),
        Table(
            caption,
            (grain.name.capitalize(), "Actual", "Forecast", "80% from", "80% to"),
            tuple((grain.label(day), *(amounts.exact(value) for value in values)) for day, *values in rows),
        ),
    )
