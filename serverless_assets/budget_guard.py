"""Whether a run may begin: what it may cost at most is asked before its first step, if there is a budget.

What is counted: a forecast that takes until its deadline, and models that are built in full from tables as
they are now. What is not: loads, tests and the other small queries of a run, and a second call in the place
of one that crashed.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from serverless_assets.forecasting.compute import MEMORY_SIZES, SMALLEST_CPU, Compute, Size
from serverless_assets.publishing.budget import (
    Charge,
    CostEstimate,
    OverBudget,
    forecast_charge,
    models_charge,
    refusal,
    verdict,
)
from serverless_assets.run_inputs import Choices, ForecastChoice
from serverless_assets.transformation.assets import asset_names
from serverless_assets.transformation.fingerprints import Materialization
from serverless_assets.transformation.planning import Planning, bytes_to_read
from serverless_assets.transformation.project import Project
from serverless_assets.warehouse import Warehouse

FORECAST, STORES = "order_forecast", "store_forecast"


@dataclass(frozen=True)
class BudgetGuard:
    """The budget in US dollars, or None for no limit, and what a run spends it on."""

    budget_usd: float | None
    compute: Compute
    project: Project
    warehouse: Warehouse

    def __call__(
        self, planned: Collection[str], choices: Callable[[], Choices], log: Callable[[str], None]
    ) -> None:
        """Let a run pass that means to write the `planned` assets.

        Raises:
            OverBudget: it may cost more than the budget.
            UserError: the warehouse cannot be asked.
        """
        if self.budget_usd is None:
            return
        most = self.most(planned, choices())
        refused = refusal(most, self.budget_usd)
        if refused:
            raise OverBudget(refused)
        log(verdict(most, self.budget_usd))

    def most(self, planned: Collection[str], choices: Choices) -> CostEstimate:
        """What a run that means to write these assets may cost at most. What is free is not asked about."""
        charges: list[Charge] = []
        calls = len({FORECAST, STORES} & set(planned))
        if choices.forecast and calls:
            charges += self._forecast(choices.forecast, calls)
        if self.warehouse.price(0) is None:
            return CostEstimate(charges)
        built, uncounted = self._models(planned)
        return CostEstimate([*charges, *built], uncounted)

    def _forecast(self, choice: ForecastChoice, calls: int) -> Iterator[Charge]:
        size = Size(choice.cpu, choice.memory)
        most = self.compute.most(size)
        price = self.compute.price(size, most)
        if price is not None:
            yield forecast_charge(
                price * calls,
                calls=calls,
                cpu=size.cpu,
                most_cpu=most.cpu_seconds / most.seconds,
                memory=size.memory,
                seconds=most.seconds,
                compute=self.compute.name,
                can_be_smaller=size != Size(SMALLEST_CPU, MEMORY_SIZES[0]),
            )

    def _models(self, planned: Collection[str]) -> tuple[list[Charge], list[str]]:
        """The charge for building the planned models in full, and those of which nobody can tell."""
        manifest = self.project.read_manifest()
        # Whatever the relations hold by now: built by force, a model is built in full.
        planning = Planning(manifest, self.warehouse, self.project.vars(), self.project.variables)
        selected = {id for id, name in asset_names(manifest).items() if name in planned}
        decisions = planning.decide(selected, notes={}, force=True)
        sizes = bytes_to_read(self.project, self.warehouse, decisions, manifest)
        tables = [decision.node.name for decision in decisions if decision.node.kind != Materialization.VIEW]
        price = self.warehouse.price(sum(sizes.values())) or 0.0
        charges = [models_charge(price, len(sizes), self.warehouse.name)] if sizes else []
        return charges, [name for name in tables if name not in sizes]
