"""Stores add up to the total."""

import numpy as np
import pytest

from modal_forecast.reconcile import reconcile

TOTAL = np.array([100.0, 90.0])
PARTS = np.array([[30.0, 30.0], [50.0, 60.0]])


def test_the_parts_add_up_to_the_total():
    total, parts = reconcile(TOTAL, PARTS, 4.0, np.array([1.0, 3.0]))
    assert parts.sum(axis=0) == pytest.approx(total)


def test_what_is_uncertain_is_changed_and_what_is_certain_stays():
    total, parts = reconcile(TOTAL, PARTS, 0.0, np.array([0.0, 9.0]))
    assert total == pytest.approx(TOTAL)
    assert parts[0] == pytest.approx(PARTS[0])
    assert parts[1] == pytest.approx([70.0, 60.0])


def test_changes_are_in_proportion_to_the_variances():
    total, parts = reconcile(TOTAL, PARTS, 4.0, np.array([1.0, 3.0]))
    # A gap of 20 on the first day: 1, 3 and 4 eighths of it.
    assert parts[:, 0] == pytest.approx([32.5, 57.5])
    assert total[0] == pytest.approx(90.0)


def test_what_adds_up_already_is_left_alone():
    total, parts = reconcile(PARTS.sum(axis=0), PARTS, 1.0, np.ones(2))
    assert total == pytest.approx(PARTS.sum(axis=0))
    assert parts == pytest.approx(PARTS)


def test_nothing_falls_below_zero():
    total, parts = reconcile(np.array([10.0]), np.array([[1.0], [40.0]]), 0.0, np.array([30.0, 1.0]))
    assert (parts >= 0).all()
    assert parts.sum() == pytest.approx(total[0])
    assert total[0] == pytest.approx(10.0)


def test_without_any_variance_all_share_the_gap():
    total, parts = reconcile(np.array([30.0]), np.array([[10.0], [14.0]]), 0.0, np.zeros(2))
    assert parts[:, 0] == pytest.approx([12.0, 16.0])
    assert total[0] == pytest.approx(28.0)
