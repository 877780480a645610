"""Forecasts of stores that cannot be right never take the place of the last ones."""

import math
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from modal_forecast.grain import GRAINS
from modal_forecast.messages import FORECAST_SCHEMA, ForecastAnswer
from serverless_assets.forecasting.checks import PART_DESCRIPTIONS, PARTS_BEAT_NAIVE, VALUES, failures
from serverless_assets.forecasting.declaration import OWN_COLUMNS, Parts
from serverless_assets.forecasting.part_accuracy import score_parts
from serverless_assets.forecasting.part_checks import check_parts, weak_parts
from serverless_assets.forecasting.part_history import PartHistories
from serverless_assets.forecasting.tables import forecast_rows
from tests.conftest import SHOP

FIRST, DAYS = date(2026, 11, 1), 3
SOUND = {"parts": 2, "weak_parts": {"count": 0, "tested": 2, "worst": []}}


def answer(level: float, **diagnostics: object) -> ForecastAnswer:
    days = pa.array([FIRST + timedelta(days=n) for n in range(DAYS)], pa.date32())
    values = {name: [level + step] * DAYS for step, name in enumerate(VALUES, -2)}
    return ForecastAnswer(pa.table({"ds": days, **values}).select(FORECAST_SCHEMA.names), diagnostics)


def histories(*names: str) -> PartHistories:
    return PartHistories([f"id of {name}" for name in names], [*names], np.array([FIRST]), np.array([]))


ANSWERS = {"id of Berlin": answer(10.0), "id of Köln": answer(20.0)}
FORECASTS, NAMES = [answer.forecast for answer in ANSWERS.values()], ["Berlin", "Köln"]
ROWS = forecast_rows(FORECASTS, "run", FIRST, {"location_id": [*ANSWERS], "location_name": NAMES})
TOTAL = answer(30.0).forecast


def changed(row: int, **values: object) -> pa.Table:
    records = ROWS.to_pylist()
    records[row] |= values
    return pa.Table.from_pylist(records, ROWS.schema)


def faults(rows: pa.Table, facts: dict[str, object] = SOUND) -> dict[str, str]:
    return {
        check.name: check.fault for check in check_parts(SHOP, SHOP.parts, rows, TOTAL, facts) if check.fault
    }


@pytest.mark.parametrize("grain", GRAINS.values())
def test_parts_whose_ids_are_their_names_have_one_column_of_both(grain):
    kinds = Parts(id="kind", noun="kind")
    rows = forecast_rows(FORECASTS, "run", FIRST, {kinds.id: NAMES, kinds.name: NAMES})
    assert set(rows["kind"].to_pylist()) == {"Berlin", "Köln"}
    values = np.ones((1, 1))
    nothing = score_parts(
        kinds, PartHistories(["a"], ["a"], np.array([FIRST]), values), [], {}, pytest.fail, grain
    )
    assert {*rows.column_names, *nothing.column_names} - {"kind"} <= OWN_COLUMNS


def test_sound_forecasts_pass_every_check_in_any_order_of_rows():
    shuffled = ROWS.take(pa.array([4, 2, 0, 5, 1, 3]))
    checks = check_parts(SHOP, SHOP.parts, shuffled, TOTAL, SOUND)
    assert [check.name for check in checks] == [*PART_DESCRIPTIONS, PARTS_BEAT_NAIVE]
    assert not any(check.fault for check in checks)


@pytest.mark.parametrize(
    ("rows", "check", "fault"),
    [
        (ROWS.slice(1), "complete", "id of Berlin, 2026-11-01: it has 0 rows instead of one."),
        (
            pa.concat_tables([ROWS, ROWS.slice(4)]),
            "complete",
            "id of Köln, 2026-11-02: it has 2 rows instead of one, as 1 more of the 6.",
        ),
        (ROWS.slice(3), "complete", "There are rows of 1 store, and 2 were forecast."),
        (
            changed(2, ds=date(2026, 12, 1)),
            "complete",
            "Berlin, 2026-12-01: the total ends on 2026-11-03, after 3 days.",
        ),
        (changed(1, yhat_upper_80=math.nan), "finite", "Berlin, 2026-11-02: yhat_upper_80 is no number."),
        (changed(1, yhat_upper_95=None), "finite", "Berlin, 2026-11-02: yhat_upper_95 is no number."),
        (changed(3, yhat_lower_95=-1.0), "not_negative", "Köln, 2026-11-01: yhat_lower_95 is -1.00."),
        (
            changed(3, yhat_upper_80=22.5),
            "bounds_in_order",
            "Köln, 2026-11-01: yhat_upper_80 is above yhat_upper_95.",
        ),
        (
            changed(5, yhat=20.5),
            "add_up",
            "2026-11-03: the stores add up to 30.50, and the total is 30.00.",
        ),
    ],
)  # fmt: skip
def test_a_forecast_that_cannot_be_right_is_named_with_its_day(rows, check, fault):
    name = next(name for name in PART_DESCRIPTIONS if name.endswith(check))
    assert faults(rows)[name] == fault


def test_stores_that_do_not_beat_repeating_the_past_are_a_warning_with_the_worst_first():
    def tested(level: float, skill: float, wape: float = 0.1, margin: float = 0.0) -> ForecastAnswer:
        scores = {"skill": skill, "skill_margin": margin, "backtest": {"wape": wape}}
        return answer(level, best_naive="seasonal_naive_7", **scores)

    answers = {
        "id of good": tested(1.0, 0.3),
        "id of small": tested(1.0, 0.0),
        "id of large": tested(9.0, 0.0),
        "id of worse": tested(1.0, -0.12),
        # Too short to tell, without a back-test, and never wrong.
        "id of short": tested(1.0, -0.08, margin=0.25),
        "id of new": answer(1.0, skill=None),
        "id of closed": tested(0.0, 0.0, wape=0.0),
    }
    names = [id.removeprefix("id of ") for id in answers]
    weak = weak_parts(SHOP.parts, histories(*names), answers)
    checks = check_parts(SHOP, SHOP.parts, ROWS, TOTAL, {**SOUND, "weak_parts": weak})
    [warning] = [check for check in checks if check.fault]
    assert warning.fault == (
        "3 of 5 stores do not beat repeating the past in the back-test: "
        "worse (errs 12% more than last week's same days), large (as last week's same days), "
        "small (as last week's same days)."
    )
    assert warning.result.severity.value == "WARN" and failures(checks) is None
    unnamed = PartHistories(["2"], ["2"], np.array([FIRST]), np.array([]))
    assert weak_parts(SHOP.parts, unnamed, {"2": tested(1.0, 0.0)})["worst"] == [
        "store 2 (as last week's same days)"
    ]
