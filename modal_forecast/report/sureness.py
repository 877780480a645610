"""How sure the forecast is: what the back-test found, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modal_forecast.report import formats
from modal_forecast.report.compared import Compared, compared
from modal_forecast.report.figures import Card, Table, figure
from modal_forecast.report.formats import Amounts

# Days outside the bounds may differ from the promise by this share of it: a back-test of some 150 days can
# hardly tell less from chance.
NEAR = 1 / 3


@dataclass(frozen=True)
class Sureness:
    """answer: of the whole section. warning: the same if the forecast does not beat a naive one, else ''."""

    answer: str
    warning: str
    cards: tuple[Card, ...]
    models: Table | None
    last_origin: Compared | None


def sureness(backtest: Mapping[str, Any] | None, amounts: Amounts) -> Sureness | None:
    """None if there was no back-test."""
    if not backtest:
        return None
    warning = _warning(backtest)
    return Sureness(
        answer=" ".join(line for line in (skill_sentence(backtest), _method(backtest)) if line),
        warning=warning,
        cards=tuple(_cards(backtest)),
        models=_models(backtest),
        last_origin=compared(backtest.get("last_origin"), "The last back-test, day by day", amounts),
    )


def skill(backtest: Mapping[str, Any]) -> float | None:
    """The share of naive's error that the forecast saves; below zero if it errs more."""
    given = figure(backtest, "skill")
    if given is not None:
        return given
    for error in ("mase", "wape"):
        ours, naive = figure(backtest, error), figure(backtest.get("naive"), error)
        if ours is not None and naive:
            return 1 - ours / naive
    return None


def skill_sentence(backtest: Mapping[str, Any]) -> str:
    """It errs 28% less than repeating last year's same days. Empty if nothing was compared."""
    saved = skill(backtest)
    if saved is None:
        return ""
    if abs(saved) < formats.NOTHING:
        return f"It errs about as much as repeating {naive_name(backtest)}."
    change = f"{formats.share(abs(saved))} {'less' if saved > 0 else 'more'}"
    return f"It errs {change} than repeating {naive_name(backtest)}."


def naive_name(backtest: Mapping[str, Any]) -> str:
    name = str((backtest.get("naive") or {}).get("name") or "earlier days")
    return name.removeprefix("repeating ")


def _warning(backtest: Mapping[str, Any]) -> str:
    saved = skill(backtest)
    beats = backtest.get("beats_naive", saved is None or saved > 0)
    if beats:
        return ""
    return (
        f"In the back-test this forecast did not beat repeating {naive_name(backtest)}. "
        f"{skill_sentence(backtest)} Do not rely on it alone."
    ).replace("  ", " ")


def _method(backtest: Mapping[str, Any]) -> str:
    origins, horizon = (figure(backtest, name) for name in ("origins", "horizon"))
    if not origins or not horizon:
        return ""
    times = "once" if origins == 1 else f"{origins:.0f} times"
    return (
        f"To find out, it was made {times} as if on a day in the past, each {formats.days(int(horizon))} "
        "ahead, and compared with what came."
    )


def _cards(backtest: Mapping[str, Any]) -> list[Card]:
    cards = []
    for level in (80, 95):
        inside = figure(backtest, f"coverage_{level}")
        if inside is not None:
            judged = judged_coverage(inside, level / 100)
            cards.append(Card(f"Days inside the {level}% bounds", formats.share(inside), "", (judged,)))
    error = figure(backtest, "wape")
    if error is not None:
        lines = (bias_words(figure(backtest, "bias")),)
        cards.append(Card("Typical error of a day", formats.share(error), "", lines))
    error = figure(backtest.get("naive"), "wape")
    if error is not None:
        repeated = (f"when repeating {naive_name(backtest)}",)
        cards.append(Card("Error without a forecast", formats.share(error), "", repeated))
    return cards


def judged_coverage(inside: float, promised: float) -> str:
    if abs(inside - promised) <= NEAR * (1 - promised):
        return "about as many as promised"
    if inside < promised:
        return "fewer than promised: expect more surprises than the bounds say"
    return "more than promised: the bounds are wider than needed"


def bias_words(bias: float | None) -> str:
    if bias is None:
        return ""
    if abs(bias) < formats.NOTHING:
        return "about right on the whole"
    return f"{formats.share(abs(bias))} too {'high' if bias > 0 else 'low'} on the whole"


def _models(backtest: Mapping[str, Any]) -> Table | None:
    models = backtest.get("models") or ()
    if not models:
        return None
    repeating = figure(backtest.get("naive"), "mase")

    def error(of: Mapping[str, Any]) -> str:
        mase = figure(of, "mase")
        return formats.number(mase / repeating if mase is not None and repeating else mase, 2)

    rows = sorted(models, key=lambda model: -(figure(model, "weight") or 0))
    return Table(
        "Methods that were tried",
        (
            "Method",
            "Share of the forecast",
            f"Error (1 = repeating {naive_name(backtest)})" if repeating else "Error (MASE)",
        ),
        (
            ("All together", formats.share(1.0), error(backtest)),
            *((str(m["name"]), formats.share(figure(m, "weight")), error(m)) for m in rows),
        ),
    )
