import re
from datetime import date

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverless_assets.warehouse import TableShape, WarehouseError
from serverless_assets.warehouse.bigquery_sql import (
    DESCRIPTION_LIMIT,
    create_statement,
    description_with_state,
    identifier,
    label,
    literal,
    months_with_keys_statement,
    replace_statement,
    staging_schema,
    state_in,
    window_statement,
    words_in,
)

ORDERS = TableShape(
    "orders",
    pa.schema({"id": pa.string(), "at": pa.timestamp("us"), "total": pa.int64()}),
    "One row per order.",
    partitioned_by="at",
    clustered_by=("id", "total"),
)
DAYS = TableShape("days", pa.schema({"day": pa.date32(), "rate": pa.float64(), "fair": pa.bool_()}))


def test_a_table_is_replaced_with_its_layout_its_description_and_its_labels() -> None:
    assert replace_statement("`orders`", "`new`", ORDERS, "A note.", {"asset": "orders"}) == (
        "create or replace table `orders` (`id` STRING, `at` TIMESTAMP, `total` INT64)\n"
        "partition by timestamp_trunc(`at`, month)\n"
        "cluster by `id`, `total`\n"
        'options(description="A note.", labels=[("asset", "orders")])\n'
        "as select `id`, timestamp(`at`) as `at`, `total` from `new`"
    )


def test_a_small_table_has_no_layout() -> None:
    assert replace_statement("`days`", "`new`", DAYS, "", {}) == (
        "create or replace table `days` (`day` DATE, `rate` FLOAT64, `fair` BOOL)\n"
        'options(description="", labels=[])\n'
        "as select `day`, `rate`, `fair` from `new`"
    )


def test_a_table_that_should_not_be_there_is_not_replaced() -> None:
    statement = create_statement("`orders`", "`new`", ORDERS, "A note.", {})
    assert statement.startswith("create table `orders` (")
    assert 'description="A note."' in statement


def test_a_window_is_one_statement_with_constant_bounds() -> None:
    assert window_statement("`orders`", "`new`", ORDERS, date(2026, 1, 1), date(2026, 3, 1)) == (
        "merge `orders` as kept using (select `id`, timestamp(`at`) as `at`, `total` from `new`) as arrived "
        "on false\n"
        "when not matched by source and kept.`at` >= timestamp '2026-01-01 00:00:00+00' "
        "and kept.`at` < timestamp '2026-03-01 00:00:00+00' then delete\n"
        "when not matched then insert (`id`, `at`, `total`) values (`id`, `at`, `total`)"
    )


def test_keys_beside_a_window_are_looked_up_in_the_other_partitions_alone() -> None:
    statement = months_with_keys_statement(
        "`orders`", "`new`", ORDERS, ["id", "total"], (date(2026, 1, 1), date(2026, 3, 1))
    )
    assert statement == (
        "select distinct date(timestamp_trunc(kept.`at`, month)) as month from `orders` as kept\n"
        "join `new` as arrived on kept.`id` = arrived.`id` and kept.`total` = arrived.`total`\n"
        "where kept.`at` < timestamp '2026-01-01 00:00:00+00' "
        "or kept.`at` >= timestamp '2026-03-01 00:00:00+00'"
    )


def test_timestamps_without_a_zone_are_staged_as_parquet_means_them() -> None:
    staged = [(field.name, field.field_type) for field in staging_schema(ORDERS.schema)]
    assert staged == [("id", "STRING"), ("at", "DATETIME"), ("total", "INT64")]


@pytest.mark.parametrize("type_", [pa.decimal128(38, 9), pa.decimal128(29, 0), pa.decimal128(1, 0)])
def test_decimals_that_fit_are_numeric(type_: pa.DataType) -> None:
    assert staging_schema(pa.schema({"price": type_}))[0].field_type == "NUMERIC"


@pytest.mark.parametrize(
    "type_",
    [
        pa.decimal128(30, 0),
        pa.decimal128(38, 10),
        pa.decimal256(9, 2),
        pa.timestamp("ms"),
        pa.timestamp("us", "UTC"),
        pa.int32(),
        pa.large_string(),
        pa.struct({"a": pa.int64()}),
    ],
)
def test_other_types_are_refused_by_name(type_: pa.DataType) -> None:
    with pytest.raises(WarehouseError, match=rf"column price is {re.escape(str(type_))}, which"):
        staging_schema(pa.schema({"price": type_}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.text(), st.dictionaries(st.text(), json_values, max_size=4))
def test_any_state_comes_back_from_any_description(description: str, state: dict[str, object]) -> None:
    text = description_with_state(description, state)
    assert state_in(text) == state
    assert text.startswith(description)
    assert words_in(text) == description


@pytest.mark.parametrize(
    "description",
    [
        None,
        "",
        "Written by hand.",
        "serverless-assets: {",
        "serverless-assets: [1]",
        "a serverless-assets: {}",
    ],
)
def test_what_is_no_state_is_no_state(description: str | None) -> None:
    assert state_in(description) == {}


def test_a_state_survives_what_a_person_adds_below_it_and_so_do_their_words() -> None:
    text = description_with_state("Orders.", {"content": "1"}) + "\n\nAsk Ada."
    assert state_in(text) == {"content": "1"}
    assert words_in(text) == "Orders.\n\nAsk Ada."


def test_a_description_that_is_too_long_is_refused() -> None:
    fits = "x" * (DESCRIPTION_LIMIT - len(description_with_state("x", {})) + 1)
    assert len(description_with_state(fits, {})) == DESCRIPTION_LIMIT
    with pytest.raises(WarehouseError, match="16,384"):
        description_with_state(fits + "x", {})


@given(st.text())
def test_a_string_ends_where_it_should(text: str) -> None:
    quoted = literal(text)
    assert quoted[0] == quoted[-1] == '"'
    inside = re.sub(r"\\(?:[bfnrt\"\\]|u00[0-9a-f]{2})", "", quoted[1:-1])
    # No quote, backslash or line break that is not escaped, and no escape but the above.
    assert not re.search(r'["\\\r\n]', inside)


@pytest.mark.parametrize("name", ["", "a`b", "a\\b", "a\nb", "a\0b"])
def test_a_name_that_quoting_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(WarehouseError, match="cannot be the name"):
        identifier("dwh", name)


def test_a_dotted_name_is_quoted_part_by_part() -> None:
    assert identifier("project-1", "dwh", 'it\'s "odd"') == '`project-1`.`dwh`.`it\'s "odd"`'


@pytest.mark.parametrize(
    ("value", "expected"),
    [("raw_orders", "raw_orders"), ("Run: ÜNI/1", "run___ni_1"), ("x" * 70, "x" * 63), ("", "")],
)
def test_a_label_keeps_to_googles_rules(value: str, expected: str) -> None:
    assert label(value) == expected
