"""Any published forecast is made again from its record, or it is said why it cannot be."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from modal_forecast.messages import ForecastAnswer, ForecastRefused
from serverless_assets.forecasting.compute import Answered, Calls, Log, Size
from serverless_assets.forecasting.local_compute import LocalCompute
from serverless_assets.forecasting.record import (
    Record,
    RecordError,
    RecordName,
    list_records,
    read_record,
)
from serverless_assets.forecasting.replay import (
    ReplayResult,
    compare_answer,
    find_record,
    listed,
    reason_not_to_replay,
    replay,
    replayed,
)
from serverless_assets.forecasting.tables import forecast_rows
from serverless_assets.publishing.outcome import PendingAssets
from serverless_assets.run_inputs import CustomisedStyle, RunForecast, RunInputs
from tests.conftest import Pipeline
from tests.forecasting.test_record import MADE_AT, RECORD, RUN, answer, record, request

NO_COMPUTE = "serverless_assets.forecasting.local_compute.LocalCompute.run"
THIRTY_DAYS = RunInputs(forecast=RunForecast(style=CustomisedStyle(nr_days_fcst=30)))


def changed(forecast: pa.Table, row: int, column: str, value: float | None) -> ForecastAnswer:
    """The same forecast with another value in one place."""
    values = forecast[column].to_pylist()
    values[row] = value
    at = forecast.schema.get_field_index(column)
    return ForecastAnswer(forecast.set_column(at, column, pa.array(values, pa.float64())))


class Answering(LocalCompute):
    """A compute whose answer is known beforehand."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        object.__setattr__(self, "content", content)

    def run(self, request: bytes, size: Size, log: Log, calls: Calls) -> Answered:
        object.__setattr__(self, "asked", (request, size))
        return Answered(self.content, 0.1)


# ---- what is said of an answer


def test_the_same_values_are_a_forecast_reproduced():
    assert compare_answer(RECORD, answer()) == ReplayResult(True, "Reproduced: all 2 rows identical.")


def test_a_difference_of_rounding_is_told_with_its_size_and_day():
    found = compare_answer(RECORD, changed(answer().forecast, 1, "yhat_upper_95", 9.0 * (1 + 3e-9)))
    assert found.reproduced
    assert found.text.startswith(
        "Reproduced within 3.0e-09 of each value (at most: 2026-01-05, yhat_upper_95"
    )


@pytest.mark.parametrize("value", [5.0 * (1 + 2e-6), None, 0.0])
def test_a_larger_difference_is_a_forecast_not_reproduced(value):
    found = compare_answer(RECORD, changed(answer().forecast, 0, "yhat", value))
    assert not found.reproduced
    assert found.text.startswith("Not reproduced: values differ by up to ")
    assert f"2026-01-04, yhat: {value} now, 5.0 then" in found.text


def test_other_days_are_a_forecast_not_reproduced():
    found = compare_answer(RECORD, ForecastAnswer(answer().forecast.slice(1)))
    assert found == ReplayResult(
        False, "Not reproduced: it is of 1 days from 2026-01-05 now, and was of 2 days from 2026-01-04."
    )


def test_a_difference_names_the_libraries_that_are_others():
    made = replace(RECORD, facts={**RECORD.facts, "versions": {"numpy": "2.1", "pandas": "2.3"}})
    found = compare_answer(made, answer(6.0, {"numpy": "2.2", "pandas": "2.3"}))
    assert found.text.endswith("It was made with numpy 2.1 then and 2.2 now.")


# ---- what is not even tried


def test_other_code_is_refused_with_the_way_to_the_code_that_made_it():
    said = str(reason_not_to_replay(RECORD, "code2"))
    assert "made by code code1, and this is code2" in said
    assert "git log -1 --before=2026-01-05T09:30:00Z -- modal_forecast" in said


def test_other_code_does_not_try_to_read_what_was_asked():
    assert "made by code" in str(reason_not_to_replay(replace(RECORD, request=b"of version 2"), "code2"))


def test_a_record_that_was_tampered_with_is_refused_and_nothing_is_computed():
    tampered = replace(RECORD, request=request(last=4.0).to_bytes())
    compute = Answering(answer().to_bytes())
    found = replay(tampered, "code1", compute, print)
    assert not found.reproduced
    assert "its history is not the one that the forecast was made from" in found.text
    assert not hasattr(compute, "asked")


def test_it_is_asked_for_what_was_asked_for_with_the_size_of_then():
    compute = Answering(answer().to_bytes())
    assert replay(RECORD, "code1", compute, print).reproduced
    assert compute.asked == (request().to_bytes(), Size(0.25, 256))


@pytest.mark.parametrize("content", [ForecastRefused("too short").to_bytes(), b"half an ans"])
def test_an_answer_that_is_none_is_a_forecast_not_reproduced(content):
    found = replay(RECORD, "code1", Answering(content), print)
    assert not found.reproduced
    assert found.text.startswith("Not reproduced: ")


# ---- which is meant

OLD = RecordName(MADE_AT, MADE_AT.date(), "a" * 16, "11aa")
NEW = RecordName(MADE_AT + timedelta(hours=1), MADE_AT.date(), "b" * 16, "11bb")
FORCED = RecordName(MADE_AT + timedelta(days=1), MADE_AT.date(), "b" * 16, "22cc")
NAMES = [OLD, NEW, FORCED]


@pytest.mark.parametrize(
    "which, name",
    [
        (None, FORCED),
        ("22", FORCED),
        ("11aa", OLD),
        ("a" * 16, OLD),
        ("b" * 16, FORCED),
        ("2026-01-05", NEW),
    ],
)
def test_a_run_a_key_or_a_day_leads_to_its_newest_record(which, name):
    assert find_record(NAMES, which) == name


@pytest.mark.parametrize("which", ["nope", "", "2026-01-07", "a" * 8])
def test_what_is_not_there_is_refused_with_what_there_is(which):
    with pytest.raises(RecordError) as refused:
        find_record(NAMES, which)
    assert f"There is no forecast {which!r}" in str(refused.value)
    assert [line.split()[4] for line in str(refused.value).splitlines()[1:]] == ["22cc,", "11bb,", "11aa,"]


def test_a_beginning_of_several_runs_is_refused_with_those():
    with pytest.raises(RecordError) as refused:
        find_record(NAMES, "11")
    assert "Several runs begin with '11'" in str(refused.value)
    assert "22cc" not in str(refused.value)


def test_before_the_first_forecast_there_is_nothing_to_replay():
    with pytest.raises(RecordError, match="run serverless_pipeline first"):
        find_record([], None)


# ---- the real thing


def records(pipeline: Pipeline) -> list[RecordName]:
    return list(list_records(pipeline.parts.publisher.published.artifacts))


def replay_of(pipeline: Pipeline, which: str | None = None) -> ReplayResult:
    return replayed(pipeline.parts.publisher.published.artifacts, pipeline.parts.compute, which, print)


def test_a_forecast_leaves_a_record_and_says_how_to_replay_it(green):
    (name,) = records(green)
    found = green.facts("order_forecast")
    assert found["record"] == str(green.home / "artifacts" / str(name))
    assert found["replay"] == f"serverless replay {green.summary['run_id']}"
    held = read_record(green.parts.publisher.published.artifacts, name)
    held.verify()
    assert held.facts == green.warehouse.read_state("order_forecast")
    assert held.rows.equals(green.published("select * from dwh.order_forecast order by ds"))


def test_an_older_forecast_is_reproduced_after_newer_ones_and_nothing_is_written(short, green):
    pipeline = short
    assert pipeline.run(THIRTY_DAYS, job="forecast").success
    assert [name.run_id for name in records(pipeline)] == [
        green.summary["run_id"],
        pipeline.summary["run_id"],
    ]
    before = content(pipeline.home)
    assert replay_of(pipeline, green.summary["run_id"][:8]).text == "Reproduced: all 180 rows identical."
    assert content(pipeline.home) == before


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_forecast_that_is_reused_leaves_no_other_record_but_the_one_that_a_killed_run_did_not_come_to(
    pipeline, monkeypatch
):
    (name,) = records(pipeline)
    path = pipeline.home / "work" / "artifacts" / str(name)
    before = Record.from_bytes(path.read_bytes())
    pipeline.artifacts.delete(str(name))
    monkeypatch.setattr(NO_COMPUTE, lambda *_: 1 / 0)
    assert pipeline.run(job="forecast").success
    assert pipeline.reason("order_forecast").endswith("; its record was written")
    # What the worker said of the back-test is gone with the killed run, and nothing else.
    assert Record.from_bytes(path.read_bytes()) == replace(before, details={})
    assert records(pipeline) == [name]


def test_a_forecast_from_before_there_were_records_is_reused_without_one(pipeline, monkeypatch):
    (name,) = records(pipeline)
    pipeline.artifacts.delete(str(name))
    facts = dict(pipeline.warehouse.read_state("order_forecast"))
    del facts["made_at"], facts["forecast_hash"]
    pipeline.warehouse.write_states({"order_forecast": facts})
    monkeypatch.setattr(NO_COMPUTE, lambda *_: 1 / 0)
    assert pipeline.run(job="forecast").success
    assert records(pipeline) == []
    assert "replay" not in pipeline.facts("order_forecast")


def test_what_was_not_published_is_not_there_to_replay(short):
    pipeline = short
    before = records(pipeline)
    # An earlier run began to change a table and did not finish.
    pipeline.warehouse.write_states({"orders": {}})
    PendingAssets(pipeline.home).replace(["orders"])
    pipeline.run(THIRTY_DAYS, job="forecast")
    assert not pipeline.summary["published"]
    assert records(pipeline) == before
    assert len(list_records(pipeline.artifacts)) == 2
    with pytest.raises(RecordError, match="There is no forecast"):
        replay_of(pipeline, pipeline.summary["run_id"])


def test_a_forecast_of_other_code_is_listed_and_refused(tmp_path, pipeline):
    store = pipeline.parts.publisher.published.artifacts
    older = record(run_id=RUN, made_at=MADE_AT)
    (store.folder / str(older.name)).write_bytes(older.to_bytes())
    (store.folder / str(replace_run(older, "damaged").name)).write_bytes(b"not parquet")
    lines = list(listed(store))
    assert len(lines) == 4
    assert RUN in lines[-1] + lines[-2] and "code1" in lines[-1] + lines[-2]
    assert any("cannot be read" in line for line in lines)
    found = replay_of(pipeline, RUN)
    assert not found.reproduced
    assert "it was made by code code1" in found.text


def replace_run(made: Record, run_id: str) -> Record:
    rows = forecast_rows([answer().forecast], run_id, MADE_AT.date())
    return Record(rows, {**made.facts, "run_id": run_id}, made.request)


def test_the_command_replays_lists_and_refuses_in_words(green, serverless):
    run_id = green.summary["run_id"]
    replayed = serverless(green, "replay")
    assert replayed.exit_code == 0, replayed.output
    assert run_id in replayed.stdout
    assert replayed.stdout.splitlines()[-1] == "Reproduced: all 180 rows identical."
    assert run_id in serverless(green, "replay", "--list").stdout
    refused = serverless(green, "replay", "nope")
    assert refused.exit_code == 1
    assert "There is no forecast 'nope'" in refused.stderr
    assert run_id in refused.stderr
    assert "Traceback" not in refused.stderr
