"""What is said of the cost of a run and of its budget."""

from dataclasses import dataclass

import pytest

from serverless_assets.budget import BudgetGuard, Charge, CostEstimate
from serverless_assets.forecasting.compute import Size, Usage
from serverless_assets.run_inputs import RunForecast, RunInputs
from tests.conftest import SHOP

MODELS = "the warehouse (12 models in BigQuery, shop.dwh in EU)"


@dataclass(frozen=True)
class Compute:
    """One with a price for half an hour, in which a worker may use so many cores."""

    usd: float
    most_cpu: float
    name: str = "Modal"

    def max_usage(self, size: Size) -> Usage:
        return Usage(1800, 1800 * self.most_cpu)

    def price(self, size: Size, used: Usage) -> float:
        return self.usd


class FreeWarehouse:
    unknown_price = ""

    def price(self, size: int) -> None:
        return None


def forecast(usd: float, cpu: str = "32.0", most_cpu: float = 32.0, memory: str = "32768") -> Charge:
    guard = BudgetGuard(None, Compute(usd, most_cpu), None, FreeWarehouse(), [SHOP])  # type: ignore[arg-type]
    inputs = RunInputs(forecast=RunForecast(cpu=cpu, memory=memory)).checked()
    [charge] = guard.estimate([SHOP.asset], inputs).charges
    return charge


def models(usd: float, number: str = "12 models") -> Charge:
    return Charge(usd, f"for the warehouse ({number} in BigQuery, shop.dwh in EU)", ["fewer models"])


@pytest.mark.parametrize(
    ("charges", "budget", "is_refused"),
    [
        ([], 0.0, False),
        ([models(0.0)], 0.0, False),
        ([models(0.00001)], 0.0, True),
        ([forecast(1.0)], 1.0, False),
        ([forecast(1.0)], 0.999999, True),
        ([forecast(0.3), models(0.2)], 0.5, False),
        ([forecast(0.3), models(0.21)], 0.5, True),
    ],
)
def test_a_run_is_refused_if_it_may_cost_more_than_the_budget(charges, budget, is_refused):
    estimate = CostEstimate(charges)
    assert (estimate.usd > budget) == is_refused == ("over the budget" in estimate.sentence(budget))


@pytest.mark.parametrize(
    ("most", "budget", "said"),
    [
        (
            CostEstimate([forecast(1.4), models(0.02)]),
            0.5,
            "This run may cost up to $1.42: $1.40 for the forecast (32 cores and 32 GiB for up to 30 min on "
            f"Modal), $0.02 for {MODELS}. That is $0.92 over the budget of $0.50 (SERVERLESS_BUDGET_USD). "
            "Choose less cpu or memory, a shorter SERVERLESS_FORECAST_DEADLINE, fewer models, or raise the "
            "budget.",
        ),
        # Too small for cents, and the smallest size that there is.
        (
            CostEstimate([forecast(0.0246, "0.25", 1.0, "256")]),
            0.0015,
            "This run may cost up to $0.0246 for the forecast (0.25 cores, or 1 if there is one free, and "
            "256 MiB for up to 30 min on Modal). That is $0.0231 over the budget of $0.0015 "
            "(SERVERLESS_BUDGET_USD). Choose a shorter SERVERLESS_FORECAST_DEADLINE, or raise the budget.",
        ),
        # What costs nothing cannot be made cheaper.
        (
            CostEstimate([forecast(1.4), models(0.0)]),
            0.5,
            "This run may cost up to $1.40: $1.40 for the forecast (32 cores and 32 GiB for up to 30 min on "
            f"Modal), $0.00 for {MODELS}. That is $0.90 over the budget of $0.50 (SERVERLESS_BUDGET_USD). "
            "Choose less cpu or memory, a shorter SERVERLESS_FORECAST_DEADLINE, or raise the budget.",
        ),
        # Rounded up, each part as well as the sum.
        (
            CostEstimate([forecast(0.501), models(0.501)]),
            1.0,
            "This run may cost up to $1.02: $0.51 for the forecast (32 cores and 32 GiB for up to 30 min on "
            f"Modal), $0.51 for {MODELS}. That is $0.02 over the budget of $1.00 (SERVERLESS_BUDGET_USD). "
            "Choose less cpu or memory, a shorter SERVERLESS_FORECAST_DEADLINE, fewer models, or raise the "
            "budget.",
        ),
        (
            CostEstimate([models(0.25, "1 model")], ["orders", "customers"]),
            0.0,
            "This run may cost up to $0.25 for the warehouse (1 model in BigQuery, shop.dwh in EU). Not "
            "counted, as they read what is not there yet: orders, customers. That is $0.25 over the budget "
            "of $0.00 (SERVERLESS_BUDGET_USD). Choose fewer models, or raise the budget.",
        ),
    ],
)
def test_a_refusal_has_the_sum_its_parts_and_what_to_do(most, budget, said):
    assert most.sentence(budget) == said


@pytest.mark.parametrize(
    ("most", "budget", "said"),
    [
        (
            CostEstimate(),
            0.0,
            "This run costs nothing. Within the budget of $0.00 (SERVERLESS_BUDGET_USD).",
        ),
        (
            CostEstimate([models(0.0)], ["orders"]),
            0.1,
            f"This run may cost up to $0.00 for {MODELS}. Not counted, as they read what is not there yet: "
            "orders. Within the budget of $0.10 (SERVERLESS_BUDGET_USD).",
        ),
    ],
)
def test_what_is_admitted_is_told_with_the_sum_too(most, budget, said):
    assert most.sentence(budget) == said


def test_what_has_an_unknown_price_is_named_and_not_said_to_cost_nothing():
    unknown = CostEstimate(unknown_price="BigQuery, as its price is not known")
    assert unknown.sentence(1.0) == (
        "Not counted: BigQuery, as its price is not known. Within the budget of $1.00 "
        "(SERVERLESS_BUDGET_USD)."
    )
