"""The budget: what a run may cost at most, asked before its first step, and the refusal of a dearer run.

What is counted: a forecast that takes until its deadline, and models that are built in full from tables as
they are now. What is not: loads, tests and the other small queries of a run, and a second call in the place
of one that failed.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from serverless_assets.errors import UserError
from serverless_assets.forecasting.compute import MEMORY_SIZES, SMALLEST_CPU, Compute, Size
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.run_inputs import RunForecast, RunInputs
from serverless_assets.transformation.decide_models import bytes_to_read, decide_models
from serverless_assets.transformation.fingerprints import Materialization
from serverless_assets.transformation.manifest import asset_names
from serverless_assets.transformation.project import Project
from serverless_assets.warehouse import Warehouse

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
    """What a run may cost at most. `uncounted` names the models whose cost is not known before they run.

    unknown_price: of what the price is not known, and why, in a clause; empty if of nothing.
    """

    charges: Sequence[Charge] = ()
    uncounted: Sequence[str] = ()
    unknown_price: str = ""

    @property
    def usd(self) -> float:
        return sum(charge.usd for charge in self.charges)


def forecast_charge(
    usd: float,
    *,
    cpu: float,
    most_cpu: float,
    memory: int,
    seconds: float,
    compute: str,
    can_be_smaller: bool,
) -> Charge:
    """Return the charge for the call to the compute: `cpu` cores were asked for, of which `most_cpu` may be
    used, and `memory` in MiB, for up to so many seconds."""
    cores = f"{cpu:g} cores" if cpu >= most_cpu else f"{cpu:g} cores, or {most_cpu:g} if there is one free,"
    size = f"{memory / 1024:g} GiB" if memory >= 1024 else f"{memory} MiB"
    length = f"{seconds / 60:.3g} min" if seconds >= 120 else f"{seconds:g} s"
    smaller = ["less cpu or memory"] if can_be_smaller else []
    return Charge(
        usd,
        f"for the forecast ({cores} and {size} for up to {length} on {compute})",
        [*smaller, "a shorter SERVERLESS_FORECAST_DEADLINE"],
    )


def models_charge(usd: float, models: int, warehouse: str) -> Charge:
    """Return the warehouse's charge for building so many models in full."""
    noun = "model" if models == 1 else "models"
    return Charge(usd, f"for the warehouse ({models} {noun} in {warehouse})", ["fewer models"])


def refusal(estimate: CostEstimate, budget: float) -> str | None:
    """Return why the run is refused, with the sum and what to do; None if the budget has room for it."""
    if estimate.usd <= budget:
        return None
    digits = _digits(estimate, budget)
    too_much = sum(_round_up(charge.usd, digits) for charge in estimate.charges) - budget
    cheaper = [choice for charge in estimate.charges if charge.usd > 0 for choice in charge.cheaper]
    return (
        f"{_cost_sentence(estimate, digits)} The budget is {_dollars(budget, digits)} ({VARIABLE}): "
        f"{_dollars(too_much, digits)} too much. Choose {', '.join(cheaper)}, or raise the budget."
    )


def verdict(estimate: CostEstimate, budget: float) -> str:
    """Return the refusal, or that the budget has room for the run."""
    digits = _digits(estimate, budget)
    return refusal(estimate, budget) or (
        f"{_cost_sentence(estimate, digits)} "
        f"The budget of {_dollars(budget, digits)} ({VARIABLE}) has room for that."
    )


def _cost_sentence(estimate: CostEstimate, digits: int) -> str:
    parts = [(_round_up(charge.usd, digits), charge.purpose) for charge in estimate.charges]
    named = [f"{_dollars(usd, digits)} {purpose}" for usd, purpose in parts]
    total = _dollars(sum(usd for usd, _ in parts), digits)
    nothing = "" if estimate.unknown_price else "This run costs nothing."
    sentence = {0: nothing, 1: f"This run may cost up to {', '.join(named)}."}.get(
        len(parts), f"This run may cost up to {total}: {', '.join(named)}."
    )
    if estimate.uncounted:
        sentence += f" Not counted, as they read what is not there yet: {', '.join(estimate.uncounted)}."
    if estimate.unknown_price:
        sentence += f" Not counted: {estimate.unknown_price}."
    return sentence.strip()


def _digits(estimate: CostEstimate, budget: float) -> int:
    """Return the fewest decimals that show the budget unrounded, and each charge as more than zero."""
    amounts = [charge.usd for charge in estimate.charges if charge.usd > 0]
    for digits in DIGITS:
        if round(budget, digits) == budget and all(usd >= 10**-digits for usd in amounts):
            return digits
    return DIGITS[-1]


def _round_up(usd: float, digits: int) -> float:
    # Rounded up, as all of these are said to be the most: so the parts also add up to the sum.
    return math.ceil(usd * 10**digits - 1e-6) / 10**digits


def _dollars(usd: float, digits: int) -> str:
    return f"${usd:,.{digits}f}"


@dataclass(frozen=True)
class BudgetGuard:
    """The budget in US dollars, or None for no limit, and what a run spends it on."""

    budget_usd: float | None
    compute: Compute
    project: Project
    warehouse: Warehouse
    forecasts: Sequence[ForecastDeclaration] = ()

    def __call__(self, planned: Collection[str], inputs: RunInputs, log: Callable[[str], None]) -> None:
        """Check that the budget has room for a run that plans to write the `planned` assets.

        Raises:
            OverBudget: it may cost more than the budget.
            UserError: the warehouse cannot be asked.
        """
        if self.budget_usd is None:
            return
        estimate = self.estimate(planned, inputs)
        refused = refusal(estimate, self.budget_usd)
        if refused:
            raise OverBudget(refused)
        log(verdict(estimate, self.budget_usd))

    def estimate(self, planned: Collection[str], inputs: RunInputs) -> CostEstimate:
        """Return what a run that writes these assets may cost at most. Free services are not asked."""
        charges: list[Charge] = []
        for forecast in self.forecasts:
            # The total and its parts are one call.
            if isinstance(inputs.forecast, RunForecast) and set(forecast.forecasts) & set(planned):
                charges += self._forecast(inputs.forecast)
        if self.warehouse.price(0) is None:
            return CostEstimate(charges, unknown_price=self.warehouse.unknown_price)
        built, uncounted = self._models(planned)
        return CostEstimate([*charges, *built], uncounted)

    def _forecast(self, forecast: RunForecast) -> Iterator[Charge]:
        size = Size(forecast.cores, forecast.mib)
        most = self.compute.max_usage(size)
        price = self.compute.price(size, most)
        if price is not None:
            yield forecast_charge(
                price,
                cpu=size.cpu,
                most_cpu=most.cpu_seconds / most.seconds,
                memory=size.memory,
                seconds=most.seconds,
                compute=self.compute.name,
                can_be_smaller=size != Size(SMALLEST_CPU, MEMORY_SIZES[0]),
            )

    def _models(self, planned: Collection[str]) -> tuple[list[Charge], list[str]]:
        """Return the charge for building the planned models, and the models whose cost is not known."""
        manifest = self.project.read_manifest()
        selected = {id for id, name in asset_names(manifest).items() if name in planned}
        # Whatever the relations hold by now: built by force, a model is built in full.
        decisions = decide_models(
            self.project, manifest, self.warehouse, selected, stored_states={}, force=True
        )
        sizes = bytes_to_read(self.project, self.warehouse, decisions, manifest)
        tables = [decision.node.name for decision in decisions if decision.node.kind != Materialization.VIEW]
        price = self.warehouse.price(sum(sizes.values())) or 0.0
        charges = [models_charge(price, len(sizes), self.warehouse.name)] if sizes else []
        return charges, [name for name in tables if name not in sizes]
