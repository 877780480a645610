"""The budget: what a run may cost at most, asked before its first step, and the refusal of a dearer run.

What is counted: a forecast that takes until its deadline, and models that are built in full from tables as
they are now. What is not: loads, tests and the other small queries of a run, and a second call in the place
of one that failed.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from modal_forecast.report.formats import counted
from serverless_assets.errors import UserError
from serverless_assets.forecasting.compute import MEMORY_SIZES, SMALLEST_CPU, Compute, Size
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.run_inputs import RunForecast, RunInputs
from serverless_assets.transformation.decide_models import bytes_to_read, decide_models
from serverless_assets.transformation.manifest import asset_names
from serverless_assets.transformation.nodes import Materialization
from serverless_assets.transformation.project import Project
from serverless_assets.warehouse import Warehouse

VARIABLE = "SERVERLESS_BUDGET_USD"
# Decimals of a sum: cents, or more if cents would show it as 0.
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

    unknown_price: a clause that names what has no known price, and says why; empty if all prices are known.
    """

    charges: Sequence[Charge] = ()
    uncounted: Sequence[str] = ()
    unknown_price: str = ""

    @property
    def usd(self) -> float:
        return sum(charge.usd for charge in self.charges)

    def sentence(self, budget: float) -> str:
        """Return the sum and its parts, and that the budget has room for it, or else what to do."""
        paid = [charge for charge in self.charges if charge.usd > 0]
        # The fewest decimals that show the budget unrounded, and each charge as more than zero.
        digits = next(
            (
                digits
                for digits in DIGITS
                if round(budget, digits) == budget and all(charge.usd >= 10**-digits for charge in paid)
            ),
            DIGITS[-1],
        )
        # Rounded up, as each is an upper bound, and before they are added, so that they add up to the sum.
        amounts = [math.ceil(charge.usd * 10**digits - 1e-6) / 10**digits for charge in self.charges]

        def dollars(usd: float) -> str:
            return f"${usd:,.{digits}f}"

        parts = ", ".join(
            f"{dollars(usd)} {charge.purpose}" for usd, charge in zip(amounts, self.charges, strict=True)
        )
        sentences = []
        if parts:
            total = f"{dollars(sum(amounts))}: " if len(amounts) > 1 else ""
            sentences.append(f"This run may cost up to {total}{parts}.")
        elif not self.unknown_price:
            sentences.append("This run costs nothing.")
        if self.uncounted:
            names = ", ".join(self.uncounted)
            sentences.append(f"Not counted, as they read what is not there yet: {names}.")
        if self.unknown_price:
            sentences.append(f"Not counted: {self.unknown_price}.")
        if self.usd <= budget:
            sentences.append(f"Within the budget of {dollars(budget)} ({VARIABLE}).")
        else:
            cheaper = ", ".join(choice for charge in paid for choice in charge.cheaper)
            sentences.append(
                f"That is {dollars(sum(amounts) - budget)} over the budget of {dollars(budget)} "
                f"({VARIABLE}). Choose {cheaper}, or raise the budget."
            )
        return " ".join(sentences)


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
        sentence = estimate.sentence(self.budget_usd)
        if estimate.usd > self.budget_usd:
            raise OverBudget(sentence)
        log(sentence)

    def estimate(self, planned: Collection[str], inputs: RunInputs) -> CostEstimate:
        """Return what a run that writes these assets may cost at most. Free services are not asked."""
        charges: list[Charge] = []
        for forecast in self.forecasts:
            # The total and its parts are one call.
            if isinstance(inputs.forecast, RunForecast) and set(forecast.forecasts) & set(planned):
                charges += self._forecast(Size.of(inputs.forecast))
        if self.warehouse.price(0) is None:
            return CostEstimate(charges, unknown_price=self.warehouse.unknown_price)
        models, uncounted = self._models(planned)
        return CostEstimate([*charges, *models], uncounted)

    def _forecast(self, size: Size) -> Iterator[Charge]:
        """Yield the charge for a call to the compute that takes until its deadline, if it charges."""
        most = self.compute.max_usage(size)
        price, most_cpu = self.compute.price(size, most), most.cpu_seconds / most.seconds
        if price is None:
            return
        cores = f"{size.cpu:g} cores"
        if size.cpu < most_cpu:
            cores = f"{cores}, or {most_cpu:g} if there is one free,"
        memory = f"{size.memory / 1024:g} GiB" if size.memory >= 1024 else f"{size.memory} MiB"
        length = f"{most.seconds / 60:.3g} min" if most.seconds >= 120 else f"{most.seconds:g} s"
        is_smallest = size == Size(SMALLEST_CPU, MEMORY_SIZES[0])
        yield Charge(
            price,
            f"for the forecast ({cores} and {memory} for up to {length} on {self.compute.name})",
            [*([] if is_smallest else ["less cpu or memory"]), "a shorter SERVERLESS_FORECAST_DEADLINE"],
        )

    def _models(self, planned: Collection[str]) -> tuple[Sequence[Charge], Sequence[str]]:
        """Return the charge for building the planned models, and the models whose cost is not known."""
        manifest, warehouse = self.project.read_manifest(), self.warehouse
        selected = {id for id, name in asset_names(manifest).items() if name in planned}
        # By force and without stored states, every model is decided to be built in full.
        decisions = decide_models(
            self.project, manifest, warehouse, selected=selected, stored_states={}, force=True
        )
        sizes = bytes_to_read(self.project, warehouse, decisions, manifest)
        tables = [decision.node.name for decision in decisions if decision.node.kind != Materialization.VIEW]
        uncounted = [name for name in tables if name not in sizes]
        if not sizes:
            return [], uncounted
        purpose = f"for the warehouse ({counted(len(sizes), 'model')} in {warehouse.name})"
        return [Charge(warehouse.price(sum(sizes.values())) or 0.0, purpose, ["fewer models"])], uncounted
