"""Parts are scaled to add up to a total that stays as it is."""

import numpy as np
import pyarrow as pa
import pytest

from modal_forecast.batch import forecast_batch
from modal_forecast.messages import ForecastAnswer, ForecastBatch, ForecastRequest
from modal_forecast.model import forecast
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
        for name, level in {"a": 3.0, "b": 1.0}.items()
    }
    ahead = pa.array(days[-1] + np.arange(1, 3))

    def answer(*values: float) -> ForecastAnswer:
        bounds = {f"yhat_{side}_{level}": values for level in (80, 95) for side in ("lower", "upper")}
        return ForecastAnswer(pa.table({"ds": ahead, "yhat": values, **bounds}))

    total = ForecastRequest(pa.table({"ds": days, "y": np.full(30, 4.0)}), 2)
    answers = {"a": answer(3.0, 3.0), "b": answer(1.0, 1.0)}
    made = reconcile_to_total(total, answer(-8.0, 0.0), requests, answers)
    assert made["a"].forecast["yhat"].to_pylist() == [-6.0, 0.0]
    assert made["b"].forecast["yhat"].to_pylist() == [-2.0, 0.0]


def test_parts_of_both_signs_add_up():
    parts = scale_to_total(np.array([50.0]), np.array([[80.0], [-20.0]]))
    assert parts[:, 0] == pytest.approx([72.0, -22.0])


# ---- of real forecasts

LAST = np.datetime64("2026-10-31")
LEVELS = {"Brooklyn": 300.0, "Chicago": 100.0, "Philadelphia": 900.0}
BOUNDS = ["yhat_lower_95", "yhat_lower_80", "yhat", "yhat_upper_80", "yhat_upper_95"]


def sales(level, days=120, closed_on=None):
    """Noisy sales with a weekly pattern that end on LAST."""
    index = np.arange(days)
    noise = np.random.default_rng([0, int(level)]).normal(0, 0.1, days)
    values = level * (1 + 0.2 * np.sin(2 * np.pi * index / 7) + noise)
    if closed_on is not None:
        values[(LAST - index[::-1]).astype(int) % 7 == closed_on] = 0
    return np.maximum(values, 0)


def history(values):
    return pa.table({"ds": LAST - np.arange(len(values))[::-1], "y": values})


class Reconciled:
    """The forecasts of parts and their total, each by itself and then made to add up."""

    def __init__(self, total, **parts):
        request = ForecastRequest(history(total), 30)
        batch = ForecastBatch({name: history(values) for name, values in parts.items()}, 30)
        self.alone, self.total = forecast_batch(batch).answers, forecast(request)
        self.parts = reconcile_to_total(request, self.total, batch.requests, self.alone)

    def gap(self):
        """The largest difference between the total and the sum of its parts, as a share of the total."""
        whole = column(self.total)
        difference = np.abs(sum(column(part) for part in self.parts.values()) - whole)
        return np.max(difference / np.maximum(np.abs(whole), 1e-9))


def shop(closed_on=None, **others):
    parts = {name: sales(level, closed_on=closed_on) for name, level in LEVELS.items()}
    return Reconciled(sum(parts.values()), **parts, **others)


def column(answer, name="yhat"):
    return answer.forecast[name].to_numpy()


@pytest.mark.parametrize("closed_on", [None, 2])
def test_parts_add_up_to_their_total_on_every_day(closed_on):
    made = shop(closed_on)
    alone = sum(column(part) for part in made.alone.values())
    assert not np.allclose(alone, column(made.total), rtol=1e-3)
    assert made.gap() < 1e-9


def test_bounds_move_as_far_as_the_forecast_and_stay_nested():
    made = shop()
    for name, before in made.alone.items():
        after = made.parts[name]
        ordered = np.array([column(after, bound) for bound in BOUNDS])
        assert (np.diff(ordered, axis=0) >= 0).all()
        assert (ordered >= 0).all()
        moved = column(after) - column(before)
        expected = np.maximum([column(before, bound) + moved for bound in BOUNDS], 0)
        assert ordered == pytest.approx(expected)


def test_closed_days_stay_closed():
    closed = sales(500, closed_on=2)
    parts = {name: sales(level) for name, level in LEVELS.items()}
    # More than its parts, so that all are raised.
    made = Reconciled(1.5 * sum(parts.values()) + closed, **parts, closed=closed)
    alone = column(made.alone["closed"]) == 0
    assert 3 < alone.sum() < 6
    assert ((column(made.parts["closed"]) == 0) == alone).all()
    assert made.gap() < 1e-9


def test_a_new_part_is_forecast_as_its_share_of_the_total():
    made = shop(New=np.full(10, 120.0))
    about = made.parts["New"].diagnostics
    total = sum(sales(level) for level in LEVELS.values())
    assert about["share"] == pytest.approx(1200 / total[-10:].sum())
    assert "share of the total in the last 28 days, 9" in about["fallbacks"][0]
    assert "10 days with a value" in about["fallbacks"][0]
    assert column(made.parts["New"]).mean() == pytest.approx(120, rel=0.2)
    assert made.gap() < 1e-9


def test_a_part_without_any_usable_day_is_forecast_as_nothing():
    made = shop(Wild=np.full(50, np.inf))
    assert (column(made.parts["Wild"]) == 0).all()
    assert "finite" in made.parts["Wild"].diagnostics["fallbacks"][0]
    assert made.gap() < 1e-9


ROUGH = np.random.default_rng(5).lognormal(0, 2, 120)


@pytest.mark.parametrize(
    ("sold", "gone", "returned", "total"),
    [(sales(300), 30 * ROUGH, 20, sales(150)), (sales(100), sales(3), 280, 200 * ROUGH)],
    ids=["a part would fall below zero", "the total would"],
)
def test_only_a_series_that_was_negative_is_forecast_below_zero(sold, gone, returned, total):
    made = Reconciled(total, sold=sold, gone=gone, returned=-sales(returned))
    for answer in (made.parts["sold"], made.parts["gone"], made.total):
        assert min(column(answer, bound).min() for bound in BOUNDS) >= 0
    assert column(made.parts["returned"]).min() < 0
    parts_sum = sum(column(answer) for answer in made.parts.values())
    assert parts_sum == pytest.approx(column(made.total), abs=1e-9)


def test_series_without_anything_to_forecast_add_up_too():
    made = Reconciled(np.zeros(40), a=np.zeros(40), b=np.zeros(40))
    assert all((column(answer) == 0).all() for answer in made.parts.values())
