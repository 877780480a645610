"""Parts are scaled to add up to a total that stays as it is."""

import numpy as np
import pyarrow as pa
import pytest

from modal_forecast.messages import ForecastAnswer, ForecastRequest
from modal_forecast.reconciliation import reconcile_to_total, scale_to_total

TOTAL = np.array([100.0, 90.0])
PARTS = np.array([[30.0, 30.0], [50.0, 60.0]])


def test_each_part_keeps_its_proportion():
    assert scale_to_total(TOTAL, PARTS) == pytest.approx(PARTS * TOTAL / PARTS.sum(axis=0))


def test_what_adds_up_already_is_left_alone():
    assert scale_to_total(PARTS.sum(axis=0), PARTS) == pytest.approx(PARTS)


def test_nothing_falls_below_zero_and_zero_stays_zero():
    parts = scale_to_total(np.array([10.0, 0.0]), np.array([[0.0, 5.0], [40.0, 5.0]]))
    assert parts == pytest.approx(np.array([[0.0, 0.0], [10.0, 0.0]]))


def test_a_total_of_parts_that_are_all_zero_is_shared_by_their_size_on_other_days():
    parts = scale_to_total(np.array([40.0, 8.0]), np.array([[30.0, 0.0], [10.0, 0.0]]))
    assert parts[:, 1] == pytest.approx([6.0, 2.0])


def test_a_total_of_parts_that_are_always_zero_is_shared_equally():
    assert scale_to_total(np.array([8.0]), np.zeros((2, 1)))[:, 0] == pytest.approx([4.0, 4.0])


def test_parts_that_were_never_below_zero_add_up_to_a_total_that_is():
    days = np.arange(np.datetime64("2026-01-01"), np.datetime64("2026-01-31"))
    requests = {
        name: ForecastRequest(pa.table({"ds": days, "y": np.full(30, level)}), 2)
        for name, level in {"a": 3.0, "b": 1.0, "total": 4.0}.items()
    }
    ahead = pa.array(days[-1] + np.arange(1, 3))

    def answer(*values: float) -> ForecastAnswer:
        bounds = {f"yhat_{side}_{level}": values for level in (80, 95) for side in ("lower", "upper")}
        return ForecastAnswer(pa.table({"ds": ahead, "yhat": values, **bounds}))

    answers = {"a": answer(3.0, 3.0), "b": answer(1.0, 1.0), "total": answer(-8.0, 0.0)}
    made = reconcile_to_total(requests, answers, "total", {})
    assert made["a"].forecast["yhat"].to_pylist() == [-6.0, 0.0]
    assert made["b"].forecast["yhat"].to_pylist() == [-2.0, 0.0]


def test_parts_of_both_signs_add_up():
    parts = scale_to_total(np.array([50.0]), np.array([[80.0], [-20.0]]))
    assert parts[:, 0] == pytest.approx([72.0, -22.0])
