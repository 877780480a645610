import hashlib
from contextlib import suppress
from datetime import date, timedelta

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modal_forecast.messages import (
    HISTORY_SCHEMA,
    ForecastAnswer,
    ForecastRefused,
    ForecastRequest,
)
from modal_forecast.wire import MessageError

DAY = date(2024, 1, 1)
# No deadline: the first example pays for imports.
fuzzed = settings(max_examples=50, deadline=None)
values = st.none() | st.floats(allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def history(*values, first=DAY):
    days = [first + timedelta(days=n) for n in range(len(values))]
    return pa.table({"ds": days, "y": values}, schema=HISTORY_SCHEMA)


def forecast(rows=2):
    bounds = {f"yhat_{side}_{width}": [1.0] * rows for width in (80, 95) for side in ("lower", "upper")}
    return pa.table({"ds": [DAY + timedelta(days=n) for n in range(rows)], "yhat": [1.0] * rows, **bounds})


@fuzzed
@given(st.lists(values, max_size=20), st.integers(), st.none() | st.text())
def test_a_request_survives_the_wire(values, horizon, country):
    request = ForecastRequest(history(*values), horizon, country)
    assert ForecastRequest.from_bytes(request.to_bytes()) == request


@fuzzed
@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_an_answer_survives_the_wire(diagnostics):
    answer = ForecastAnswer(forecast(), diagnostics)
    assert ForecastAnswer.from_bytes(answer.to_bytes()) == answer


@fuzzed
@given(st.text())
def test_a_refusal_survives_the_wire(reason):
    assert str(ForecastRefused.from_bytes(ForecastRefused(reason).to_bytes())) == reason


def test_a_caller_that_expects_an_answer_gets_a_refusal_raised():
    refusal = ForecastRefused("The history is too short: load more.")
    with pytest.raises(ForecastRefused, match="too short: load more"):
        ForecastAnswer.from_bytes(refusal.to_bytes())


@fuzzed
@given(st.lists(values, min_size=1, max_size=70), st.data())
def test_equal_requests_have_equal_bytes_however_the_table_came_to_be(values, data):
    plain = history(*values)
    cut = data.draw(st.integers(0, len(values)))
    shuffled = data.draw(st.permutations(range(len(values))))
    nan_for_null = plain.set_column(1, "y", pa.array([float("nan") if v is None else v for v in values]))
    same = [
        pa.concat_tables([plain.slice(0, cut), plain.slice(cut)]),
        pa.concat_tables([plain, plain]).slice(len(values)),
        plain.take(shuffled),
        nan_for_null,
        plain.replace_schema_metadata({"pandas": "{}"}),
        plain.append_column("store", pa.array(["a"] * len(values))),
        plain.select(["y", "ds"]),
        plain.cast(pa.schema({"ds": pa.timestamp("us"), "y": pa.float64()})),
    ]
    expected = ForecastRequest(plain).to_bytes()
    assert [ForecastRequest(table).to_bytes() == expected for table in same] == [True] * len(same)


def test_requests_that_differ_have_different_bytes():
    requests = [
        ForecastRequest(history(1.0, 2.0), 180, "US"),
        ForecastRequest(history(1.0, 3.0), 180, "US"),
        ForecastRequest(history(1.0, None), 180, "US"),
        ForecastRequest(history(1.0, 2.0, first=DAY + timedelta(days=1)), 180, "US"),
        ForecastRequest(history(1.0, 2.0), 181, "US"),
        ForecastRequest(history(1.0, 2.0), 180, None),
    ]
    assert len({hashlib.sha256(request.to_bytes()).digest() for request in requests}) == len(requests)


def test_equal_diagnostics_have_equal_bytes_in_any_order():
    one, other = ForecastAnswer(forecast(), {"a": 1, "b": 2}), ForecastAnswer(forecast(), {"b": 2, "a": 1})
    assert one.to_bytes() == other.to_bytes()


def test_negative_zero_is_zero():
    assert ForecastRequest(history(-0.0)).to_bytes() == ForecastRequest(history(0.0)).to_bytes()


def test_a_message_is_small():
    three_years = history(*[1.0] * 1100)
    assert len(ForecastRequest(three_years).to_bytes()) < 1100 * 16 + 1500


@fuzzed
@given(st.binary())
@example(b"")
def test_garbage_is_refused_in_words(garbage):
    for message in (ForecastRequest, ForecastAnswer, ForecastRefused):
        with pytest.raises(MessageError, match=r"no message of modal_forecast.*to_bytes"):
            message.from_bytes(garbage)


def test_another_arrow_table_is_refused_in_words():
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, HISTORY_SCHEMA) as stream:
        stream.write_table(history(1.0))
    with pytest.raises(MessageError, match="no message of modal_forecast"):
        ForecastRequest.from_bytes(sink.getvalue().to_pybytes())


def test_a_message_of_another_kind_is_refused_in_words():
    with pytest.raises(MessageError, match="This is a forecast answer, where a forecast request was"):
        ForecastRequest.from_bytes(ForecastAnswer(forecast()).to_bytes())
    with pytest.raises(
        MessageError, match="This is a forecast request, where a forecast answer was expected"
    ):
        ForecastAnswer.from_bytes(ForecastRequest(history(1.0)).to_bytes())


def test_a_message_of_another_version_is_refused_in_words():
    raw = ForecastRequest(history(1.0)).to_bytes().replace(b'"version": 5', b'"version": 6')
    with pytest.raises(MessageError, match="of protocol version 6, and this code reads version 5"):
        ForecastRequest.from_bytes(raw)


def test_a_message_that_lacks_a_parameter_is_refused_in_words():
    raw = ForecastRequest(history(1.0)).to_bytes().replace(b'"horizon"', b'"horicon"')
    with pytest.raises(MessageError, match="lacks its horizon"):
        ForecastRequest.from_bytes(raw)


def test_a_message_cut_off_anywhere_is_refused_in_words():
    raw = ForecastRequest(history(*range(100))).to_bytes()
    end_of_stream = 8  # bytes that an Arrow stream may lack
    for length in range(len(raw) - end_of_stream):
        with pytest.raises(MessageError):
            ForecastRequest.from_bytes(raw[:length])


@fuzzed
@given(st.data())
def test_a_message_with_a_wrong_byte_is_read_or_refused_but_never_crashes(data):
    raw = bytearray(ForecastRequest(history(1.0, None, 3.0)).to_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(MessageError):
        ForecastRequest.from_bytes(bytes(raw))


def test_a_history_without_its_columns_is_refused_in_words():
    with pytest.raises(
        MessageError, match=r"The history needs the columns ds \(date32\[day\]\), y \(double\)"
    ):
        ForecastRequest(pa.table({"day": [DAY], "y": [1.0]}))
    with pytest.raises(MessageError, match="The history needs"):
        ForecastRequest(pa.table({"ds": [DAY], "y": ["much"]}))
