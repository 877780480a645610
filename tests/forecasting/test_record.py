"""A record holds all that it takes to ask for a forecast again, and tells if it was tampered with."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest

from modal_forecast.messages import FORECAST_SCHEMA, ForecastAnswer, ForecastRequest
from serverless_assets.forecasting.record import (
    Record,
    RecordError,
    RecordName,
    as_file,
    facts_in,
    forecast_hash,
    record_facts,
)
from serverless_assets.forecasting.reuse import fingerprint
from serverless_assets.forecasting.tables import TOTAL_SCHEMA, forecast_rows

MADE_AT = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
RUN = "11111111-2222-3333-4444-555555555555"


def request(last: float = 3.0, horizon: int = 2) -> ForecastRequest:
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(3)]
    return ForecastRequest(
        pa.table({"ds": pa.array(days, pa.date32()), "y": [1.0, 2.0, last]}), horizon, "US"
    )


def answer(value: float = 5.0, versions: dict[str, str] | None = None) -> ForecastAnswer:
    days = pa.array([date(2026, 1, 4), date(2026, 1, 5)], pa.date32())
    columns = [[value + n, value + n] for n in range(len(FORECAST_SCHEMA) - 1)]
    return ForecastAnswer(pa.table([days, *columns], schema=FORECAST_SCHEMA), {"versions": versions or {}})


def record(
    asked: ForecastRequest | None = None, run_id: str = RUN, made_at: datetime = MADE_AT, code: str = "code1"
) -> Record:
    asked = asked or request()
    rows = forecast_rows([answer().forecast], run_id, made_at.date())
    how = {
        "run_id": run_id,
        "cpu": 0.25,
        "memory_mib": 256,
        "data_as_of": "2026-01-03",
        "compute": "a process on this machine",
        "versions": {},
    }
    facts = {**how, **fingerprint(asked, code), **record_facts(rows, made_at)}
    return Record(rows, facts, asked.to_bytes())


RECORD = record()


def problem(found: Record) -> str:
    with pytest.raises(RecordError) as raised:
        found.verify()
    return str(raised.value)


# ---- the file


def test_a_record_comes_back_as_it_was_written():
    again = Record.from_bytes(RECORD.to_bytes())
    assert again == RECORD
    again.verify()
    assert ForecastRequest.from_bytes(again.request).history.equals(request().history)


def test_rows_and_facts_read_as_those_of_a_forecasts_file_do():
    assert facts_in(RECORD.to_bytes()) == facts_in(as_file(RECORD.rows, RECORD.facts)) == RECORD.facts
    assert Record.from_bytes(RECORD.to_bytes()).rows.schema == TOTAL_SCHEMA


@pytest.mark.parametrize(
    "content",
    [b"", b"not parquet", RECORD.to_bytes()[:-9], as_file(RECORD.rows, RECORD.facts)],
    ids=["empty", "not parquet", "cut off", "a forecast's file"],
)
def test_anything_else_is_refused_in_words(content):
    with pytest.raises(RecordError, match="cannot be read"):
        Record.from_bytes(content)


def test_facts_without_which_it_cannot_be_asked_again_are_missed_by_name():
    facts = {fact: value for fact, value in RECORD.facts.items() if fact not in ("cpu", "made_at")}
    with pytest.raises(RecordError, match="does not say its made_at, cpu"):
        Record.from_bytes(Record(RECORD.rows, facts, RECORD.request).to_bytes())


# ---- its name


def test_a_name_tells_when_by_which_run_and_from_what():
    key = RECORD.facts["forecast_key"]
    assert str(RECORD.name) == f"forecast-record-20260105T093000Z-20260103-{key}-{RUN}.parquet"
    assert (
        RecordName.parse(str(RECORD.name)) == RECORD.name == RecordName(MADE_AT, date(2026, 1, 3), key, RUN)
    )


@pytest.mark.parametrize(
    "name",
    [
        "forecast.parquet",
        "forecast-record-x.parquet",
        f"{RECORD.name}.bak",
        str(RECORD.name).replace("0103", "9903"),
    ],
)
def test_other_files_have_no_such_name(name):
    assert RecordName.parse(name) is None


def test_names_are_in_the_order_of_time():
    earlier = record(run_id="ffff", made_at=MADE_AT - timedelta(seconds=1))
    assert sorted(map(str, [RECORD.name, earlier.name])) == [str(earlier.name), str(RECORD.name)]


def test_a_forecast_from_before_there_were_records_has_no_name():
    assert RecordName.of({"forecast_key": "k", "run_id": RUN}) is None


# ---- what it holds


@pytest.mark.parametrize(
    "tampered, said",
    [
        (replace(RECORD, request=request(last=4.0).to_bytes()), "its history is not the one"),
        (replace(RECORD, request=request(horizon=3).to_bytes()), "its horizon is not the one"),
        (replace(RECORD, facts={**RECORD.facts, "forecast_key": "0" * 16}), "its key is not that"),
        (replace(RECORD, facts={**RECORD.facts, "history_hash": "0" * 16}), "its history is not the one"),
        (
            replace(RECORD, rows=forecast_rows([answer(6.0).forecast], RUN, MADE_AT.date())),
            "its forecast was changed",
        ),
        (replace(RECORD, request=b"nonsense"), "what was asked cannot be read"),
    ],
)
def test_a_record_that_was_changed_says_what_in_it(tampered, said):
    assert problem(Record.from_bytes(tampered.to_bytes())).startswith(said)


def test_columns_that_the_forecast_has_got_since_do_not_make_a_record_unsound():
    wider = RECORD.rows.append_column("note", pa.array(["", ""]))
    facts = {**RECORD.facts, "forecast_key": fingerprint(request(), "code1", wider.schema)["forecast_key"]}
    Record.from_bytes(Record(wider, facts, RECORD.request).to_bytes()).verify()


def test_the_same_values_have_the_same_hash_whichever_run_made_them_and_when():
    later = forecast_rows([answer().forecast], "another", MADE_AT.date() + timedelta(days=9))
    assert forecast_hash(later) == forecast_hash(RECORD.rows) == forecast_hash(answer().forecast)
    assert forecast_hash(forecast_rows([answer(6.0).forecast], RUN, MADE_AT.date())) != forecast_hash(
        RECORD.rows
    )
