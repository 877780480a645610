"""What a forecast costs: what was asked for, or what was used if that is more."""

import pytest

from serverless_assets.forecasting.compute import Size, Usage
from serverless_assets.forecasting.local_compute import LocalCompute
from serverless_assets.forecasting.modal_compute import (
    USD_PER_CORE_SECOND,
    USD_PER_GIB_SECOND,
    ModalCompute,
)

CORE, GIB = USD_PER_CORE_SECOND, USD_PER_GIB_SECOND
MODAL = ModalCompute("app", None, deadline_seconds=600.0)


@pytest.mark.parametrize(
    ("size", "used", "usd"),
    [
        # Nothing is known but how long it took.
        (Size(2.0, 1024), Usage(10), 10 * (2 * CORE + GIB)),
        # Less than was asked for.
        (Size(2.0, 1024), Usage(10, cpu_seconds=5, peak_memory=100), 10 * (2 * CORE + GIB)),
        # A fraction of a core was asked for, and most of one used.
        (Size(0.25, 256), Usage(10, cpu_seconds=8), 8 * CORE + 10 * GIB / 4),
        (Size(0.25, 256), Usage(10, peak_memory=512), 10 * (CORE / 4 + GIB / 2)),
        (Size(0.25, 256), Usage(0), 0),
    ],
)
def test_modal_charges_what_was_asked_for_or_used_whichever_is_more(size, used, usd):
    assert MODAL.price(size, used) == pytest.approx(usd)


@pytest.mark.parametrize(
    ("size", "usd"),
    [
        (Size(32.0, 32768), 600 * (32 * CORE + 32 * GIB)),
        (Size(1.5, 2048), 600 * (2 * CORE + 2 * GIB)),
        # A whole core is the most that a call may use where a fraction was asked for.
        (Size(0.25, 256), 600 * (CORE + GIB / 4)),
    ],
)
def test_the_most_that_a_call_may_cost_is_all_that_it_may_use_until_its_deadline(size, usd):
    assert MODAL.price(size, MODAL.max_usage(size)) == pytest.approx(usd)


@pytest.mark.parametrize(("region", "factor"), [("eu", 1.5), ("us-east", 1.75)])
def test_a_region_of_ones_choice_costs_more(region, factor):
    there = ModalCompute("app", None, deadline_seconds=600.0, region=region)
    assert there.price(Size(1.0, 1024), Usage(10)) == pytest.approx(10 * factor * (CORE + GIB))


def test_this_machine_is_free():
    compute = LocalCompute()
    assert compute.price(Size(4.0, 1024), compute.max_usage(Size(4.0, 1024))) is None
