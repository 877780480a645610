"""Which columns of a query an edit changes, and which queries are not sure at all."""

import pytest

from serverless_assets.transformation.query_columns import query_columns
from serverless_assets.transformation.relation_states import ROWS, UNSURE, QueryColumns

COLUMNS = {"orders": ["id", "paid", "tax", "at"], "stores": ["id", "city"]}
RELATIONS = {'"w"."dwh"."orders"': "orders", '"w"."dwh"."stores"': "stores", '"w"."other"."logs"': "logs"}
ORDERS, STORES, LOGS = '"w"."dwh"."orders"', '"w"."dwh"."stores"', '"w"."other"."logs"'


def read(sql: str, columns: dict[str, list[str]] = COLUMNS) -> QueryColumns:
    sql = sql.format(orders=ORDERS, stores=STORES, logs=LOGS)
    return query_columns(sql, RELATIONS, columns, "duckdb")


def changed(before: str, after: str) -> set[str]:
    one, other = read(before), read(after)
    assert one
    assert other
    return {name for name in one.keys() & other.keys() if one[name] != other[name]}


@pytest.mark.parametrize(
    ("before", "after", "columns"),
    [
        ("id, paid from {orders}", "paid, id, tax from {orders}", set()),
        ("id, paid from {orders}", "id, paid + tax as paid from {orders}", {"paid"}),
        (
            "id, 2 * p as twice from (select id, paid as p from {orders}) o",
            "id, 2 * p as twice from (select id, tax as p from {orders}) o",
            {"twice"},
        ),
        # What joins, filters, groups and sorts out equal rows decides which rows there are.
        ("id from {orders}", "id from {orders} where tax > 0", {ROWS, "id"}),
        (
            "o.id from {orders} o join {stores} s on o.id = s.id",
            "o.id from {orders} o left join {stores} s on o.id = s.id",
            {ROWS, "id"},
        ),
        ("o.id from {orders} o", "o.id from {orders} o cross join {stores} s", {ROWS, "id"}),
        (
            "id, sum(paid) as p from {orders} group by id",
            "id, sum(tax) as p from {orders} group by id",
            {"p"},
        ),
        (
            "id, sum(paid) as p from {orders} group by id",
            "id, sum(paid) as p from {orders} group by id, at",
            {ROWS, "id", "p"},
        ),
        ("distinct id, paid from {orders}", "distinct id, tax as paid from {orders}", {ROWS, "id", "paid"}),
        ("id, 1 as one from {orders}", "id, max(id) as one from {orders} group by id", {ROWS, "id", "one"}),
        (
            "1 as one from (select max(id) as m from {orders}) o",
            "1 as one from (select id as m from {orders}) o",
            {ROWS, "one"},
        ),
        (
            "id, paid as p from {orders} union all select id, tax from {orders}",
            "id, paid as p from {orders} union all select id, at from {orders}",
            {"p"},
        ),
        (
            "id, paid as p from {orders} union select id, tax from {orders}",
            "id, paid as p from {orders} union select id, at from {orders}",
            {ROWS, "id", "p"},
        ),
        (
            "id, (select max(city) from {stores} s where s.id = o.id) as c from {orders} o",
            "id, (select max(city) from {stores} s where s.id = o.tax) as c from {orders} o",
            {"c"},
        ),
        (
            "x.id, y.id as n from {orders} x, {stores} y",
            "x.id, y.id as n from {stores} x, {orders} y",
            {ROWS, "id", "n"},
        ),
        # The name of an alias is in the code: built once too often.
        ("o.id from {orders} o", "p.id from {orders} p", {ROWS, "id"}),
        ("id from {orders} order by id", "id from {orders}", set()),
    ],
)
def test_an_edit_changes_the_columns_that_it_is_about(before, after, columns):
    assert changed(f"select {before}", f"select {after}") == columns


def test_columns_that_may_be_others_in_each_build_are_not_sure():
    query = read(
        "select id, row_number() over (partition by id order by at) as n, any_value(tax) over () as t, "
        "sum(paid) over (order by at) as s, sum(paid) over (order by at rows unbounded preceding) as r, "
        "current_date as today from {orders}"
    )
    assert {name for name, (code, _) in query.items() if code.startswith(UNSURE)} == {"n", "t", "r", "today"}
    # What selects from them is not sure either.
    query = read(
        "select id, n + 1 as m from (select id, row_number() over (order by at) as n from {orders}) as o"
    )
    assert [name for name, (code, _) in query.items() if code.startswith(UNSURE)] == ["m"]


@pytest.mark.parametrize(
    "sql",
    [
        "select id from {orders} limit 10",
        "select id from {orders} where at < current_date",
        "select id from {orders} qualify row_number() over (order by at) = 1",
        "select distinct on (id) id, paid from {orders}",
        "select id, sum(paid) as p from {orders} group by all",
        "select unnest([id, tax]) as id from {orders}",
        "select my_function(id) as id from {orders}",
        "select columns('.*') from {orders}",
        "select o from {orders} o",
        "select id from {orders} tablesample 10%",
        "select id from {orders}, unnest([1, 2]) as u(n)",
        "with recursive o as (select 1 as id union all select id + 1 from o where id < 9) select id from o",
        "select id from elsewhere",
        "select id, paid as id from {orders}",
        "select id from {orders} except select id from {stores}",
        "select * from {logs}",
        "select a, 2 * b as a from {logs}",
        "select id, line from {orders}, {logs}",
        "select l.line from {logs} l join {orders} o using (id)",
        "select line from {logs} where line in (select id from {orders} where tax = level)",
        "this is no query",
    ],
)
def test_a_query_that_is_not_understood_is_not_sure_as_a_whole(sql):
    assert read(sql) == {}


def test_a_star_stands_for_the_columns_of_its_relation_and_those_are_read_that_are_selected():
    query = read(
        "with o as (select * from {orders}) select id, paid - tax as net from o where at is not null"
    )
    assert {name: reads for name, (_, reads) in query.items()} == {
        ROWS: {"orders": ["at"]},
        "id": {"orders": ["id"]},
        "net": {"orders": ["paid", "tax"]},
    }
    assert [*read("select * from {orders}")] == [ROWS, *COLUMNS["orders"]]
    assert read("select count(*) as n from {orders}")[ROWS][1] == {"orders": []}


def test_columns_are_found_in_one_relation_of_which_they_are_not_known():
    sql = "with source as (select * from {logs}), final as (select id, lower(line) as line from source) "
    query = read(sql + "select * from final")
    assert {name: reads for name, (_, reads) in query.items()} == {
        ROWS: {"logs": []},
        "id": {"logs": ["id"]},
        "line": {"logs": ["line"]},
    }
