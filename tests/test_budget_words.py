import pytest

from serverless_assets.budget import (
    Charge,
    CostEstimate,
    forecast_charge,
    models_charge,
    refusal,
    verdict,
)

MODELS = "the warehouse (12 models in BigQuery, shop.dwh in EU)"


def forecast(usd: float, cpu: float = 32.0, most_cpu: float = 32.0, memory: int = 32768) -> Charge:
    return forecast_charge(
        usd,
        cpu=cpu,
        most_cpu=most_cpu,
        memory=memory,
        seconds=1800,
        compute="Modal",
        can_be_smaller=cpu > 0.25,
    )


def models(usd: float, number: int = 12) -> Charge:
    return models_charge(usd, number, "BigQuery, shop.dwh in EU")


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
    assert (refusal(CostEstimate(charges), budget) is not None) == is_refused


@pytest.mark.parametrize(
    ("most", "budget", "said"),
    [
        (
            CostEstimate([forecast(1.4), models(0.02)]),
            0.5,
            "This run may cost up to $1.42: $1.40 for the forecast (32 cores and 32 GiB for up to 30 min on "
            f"Modal), $0.02 for {MODELS}. The budget is $0.50 (SERVERLESS_BUDGET_USD): $0.92 too much. "
            "Choose less cpu or memory, a shorter SERVERLESS_FORECAST_DEADLINE, fewer models, or raise the "
            "budget.",
        ),
        # Too small for cents, and the smallest size that there is.
        (
            CostEstimate([forecast(0.0246, cpu=0.25, most_cpu=1.0, memory=256)]),
            0.0015,
            "This run may cost up to $0.0246 for the forecast (0.25 cores, or 1 if there is one free, and "
            "256 MiB for up to 30 min on Modal). The budget is $0.0015 (SERVERLESS_BUDGET_USD): $0.0231 too "
            "much. Choose a shorter SERVERLESS_FORECAST_DEADLINE, or raise the budget.",
        ),
        # What costs nothing cannot be made cheaper.
        (
            CostEstimate([forecast(1.4), models(0.0)]),
            0.5,
            "This run may cost up to $1.40: $1.40 for the forecast (32 cores and 32 GiB for up to 30 min on "
            f"Modal), $0.00 for {MODELS}. The budget is $0.50 (SERVERLESS_BUDGET_USD): $0.90 too much. "
            "Choose less cpu or memory, a shorter SERVERLESS_FORECAST_DEADLINE, or raise the budget.",
        ),
        # Rounded up, each part as well as the sum.
        (
            CostEstimate([forecast(0.501), models(0.501)]),
            1.0,
            "This run may cost up to $1.02: $0.51 for the forecast (32 cores and 32 GiB for up to 30 min on "
            f"Modal), $0.51 for {MODELS}. The budget is $1.00 (SERVERLESS_BUDGET_USD): $0.02 too much. "
            "Choose less cpu or memory, a shorter SERVERLESS_FORECAST_DEADLINE, fewer models, or raise the "
            "budget.",
        ),
        (
            CostEstimate([models(0.25, 1)], ["orders", "customers"]),
            0.0,
            "This run may cost up to $0.25 for the warehouse (1 model in BigQuery, shop.dwh in EU). Not "
            "counted, as they read what is not there yet: orders, customers. The budget is $0.00 "
            "(SERVERLESS_BUDGET_USD): $0.25 too much. Choose fewer models, or raise the budget.",
        ),
    ],
)
def test_a_refusal_has_the_sum_its_parts_and_what_to_do(most, budget, said):
    assert refusal(most, budget) == verdict(most, budget) == said


@pytest.mark.parametrize(
    ("most", "budget", "said"),
    [
        (
            CostEstimate(),
            0.0,
            "This run costs nothing. The budget of $0.00 (SERVERLESS_BUDGET_USD) has room for that.",
        ),
        (
            CostEstimate([models(0.0)], ["orders"]),
            0.1,
            f"This run may cost up to $0.00 for {MODELS}. Not counted, as they read what is not there yet: "
            "orders. The budget of $0.10 (SERVERLESS_BUDGET_USD) has room for that.",
        ),
    ],
)
def test_what_is_admitted_is_told_with_the_sum_too(most, budget, said):
    assert verdict(most, budget) == said


def test_what_has_an_unknown_price_is_named_and_not_said_to_cost_nothing():
    unknown = CostEstimate(unknown_price="BigQuery, as its price is not known")
    assert verdict(unknown, 1.0) == (
        "Not counted: BigQuery, as its price is not known. The budget of $1.00 (SERVERLESS_BUDGET_USD) has "
        "room for that."
    )
