"""What a run may cost at most, and whether the budget has room for that. Pure: sums and words."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serverless_assets.errors import UserError

VARIABLE = "SERVERLESS_BUDGET_USD"
# What is shown of a dollar: cents, and more where cents would show nothing.
DIGITS = (2, 4, 6, 8)


class OverBudget(UserError):
    """A run that may cost more than the budget; the message has the sum."""


@dataclass(frozen=True)
class Charge:
    """A part of what a run may cost: US dollars, what for, and what to choose to spend less on it."""

    usd: float
    purpose: str
    cheaper: Sequence[str]


@dataclass(frozen=True)
class CostEstimate:
    """What a run may cost at most. `uncounted` names models of which nobody can tell beforehand."""

    charges: Sequence[Charge] = ()
    uncounted: Sequence[str] = ()

    @property
    def usd(self) -> float:
        return sum(charge.usd for charge in self.charges)


def forecast_charge(
    usd: float,
    *,
    calls: int = 1,
    cpu: float,
    most_cpu: float,
    memory: int,
    seconds: float,
    compute: str,
    can_be_smaller: bool,
) -> Charge:
    """The forecast's, of so many calls: for each, `cpu` cores were asked for, of which `most_cpu` may be
    used, and `memory` in MiB, for up to so many seconds."""
    cores = f"{cpu:g} cores" if cpu >= most_cpu else f"{cpu:g} cores, or {most_cpu:g} if there is one free,"
    size = f"{memory / 1024:g} GiB" if memory >= 1024 else f"{memory} MiB"
    length = f"{seconds / 60:.3g} min" if seconds >= 120 else f"{seconds:g} s"
    times = f"{calls} times " if calls > 1 else ""
    smaller = ["less cpu or memory"] if can_be_smaller else []
    return Charge(
        usd,
        f"for the forecast ({times}{cores} and {size} for up to {length} on {compute})",
        [*smaller, "a shorter SERVERLESS_FORECAST_DEADLINE"],
    )


def models_charge(usd: float, models: int, warehouse: str) -> Charge:
    """The warehouse's, for building so many models in full."""
    noun = "model" if models == 1 else "models"
    return Charge(usd, f"for the warehouse ({models} {noun} in {warehouse})", ["fewer models"])


def refusal(most: CostEstimate, budget: float) -> str | None:
    """Why the run is refused and what to do, in words with the sum; None if the budget has room for it."""
    if most.usd <= budget:
        return None
    digits = _digits(most, budget)
    too_much = sum(_up(charge.usd, digits) for charge in most.charges) - budget
    cheaper = [choice for charge in most.charges if charge.usd > 0 for choice in charge.cheaper]
    return (
        f"{_sum(most, digits)} The budget is {_dollars(budget, digits)} ({VARIABLE}): "
        f"{_dollars(too_much, digits)} too much. {_advice(cheaper)}"
    )


def verdict(most: CostEstimate, budget: float) -> str:
    """The refusal, or that the budget has room for the run."""
    digits = _digits(most, budget)
    return refusal(most, budget) or (
        f"{_sum(most, digits)} The budget of {_dollars(budget, digits)} ({VARIABLE}) has room for that."
    )


def _sum(most: CostEstimate, digits: int) -> str:
    parts = [(_up(charge.usd, digits), charge.purpose) for charge in most.charges]
    named = [f"{_dollars(usd, digits)} {purpose}" for usd, purpose in parts]
    total = _dollars(sum(usd for usd, _ in parts), digits)
    told = {0: "This run costs nothing.", 1: f"This run may cost up to {', '.join(named)}."}.get(
        len(parts), f"This run may cost up to {total}: {', '.join(named)}."
    )
    if most.uncounted:
        told += f" Not counted, as they read what is not there yet: {', '.join(most.uncounted)}."
    return told


def _advice(cheaper: Iterable[str]) -> str:
    return f"Choose {', '.join(cheaper)}, or raise the budget."


def _digits(most: CostEstimate, budget: float) -> int:
    """As few as show the budget as it is, and something of each charge."""
    shown = [charge.usd for charge in most.charges if charge.usd > 0]
    for digits in DIGITS:
        if round(budget, digits) == budget and all(usd >= 10**-digits for usd in shown):
            return digits
    return DIGITS[-1]


def _up(usd: float, digits: int) -> float:
    # Rounded up, as all of these are said to be the most: so the parts also add up to the sum.
    return math.ceil(usd * 10**digits - 1e-6) / 10**digits


def _dollars(usd: float, digits: int) -> str:
    return f"${usd:,.{digits}f}"
