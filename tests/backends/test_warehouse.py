"""What every warehouse promises."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serverless_assets.warehouse import TableShape, WarehouseError
from tests.backends.conftest import Backend
from tests.backends.stock import (
    FACTS,
    FEBRUARY,
    FIRST_OF_FEBRUARY,
    FIRST_OF_MARCH,
    JANUARY,
    LAST_OF_FEBRUARY,
    MARCH,
    ORDERS,
    STOCK,
    kept,
    kept_orders,
    nothing,
    orders,
)

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "whole": pa.int64(),
        "rate": pa.float64(),
        "flag": pa.bool_(),
        "at": pa.timestamp("us"),
        "day": pa.date32(),
        "price": pa.decimal128(12, 2),
        "raw": pa.binary(),
    }
)
KINDS = TableShape("kinds", SCHEMA, "All kinds of columns.")
EVERY_KIND = [
    {
        "id": "1 ünï\n\"'\\`😀\t;--",
        "whole": 2**62 + 1,
        "rate": 0.1,
        "flag": True,
        "at": datetime(2026, 3, 29, 2, 30, 0, 123456),
        "day": date(2024, 2, 29),
        "price": Decimal("9999999999.99"),
        "raw": b"\x00\xff'\\",
    },
    {
        "id": "2",
        "whole": -(2**62),
        "rate": -1e300,
        "flag": False,
        "at": datetime(1969, 12, 31, 23, 59, 59, 999999),
        "day": date(1, 1, 1),
        "price": Decimal("-0.01"),
        "raw": b"",
    },
    {
        "id": "3",
        "whole": None,
        "rate": None,
        "flag": None,
        "at": None,
        "day": None,
        "price": None,
        "raw": None,
    },
    {
        "id": "",
        "whole": 0,
        "rate": 0.0,
        "flag": None,
        "at": datetime(9999, 12, 31),
        "day": None,
        "price": None,
        "raw": b"bytes",
    },
]

AWKWARD = 'it\'s "quoted", `ticked`, {braced} %s \\ \\n\n\r\ttwo lines; -- serverless-assets: ünï 😀 \u2028'
AS_FEBRUARY = """"at" >= date '2026-02-01' and "at" < date '2026-03-01'"""


@pytest.fixture
def stocked(backend: Backend) -> Backend:
    """A backend with orders on the last and first instant of months."""
    backend.warehouse.replace_rows(ORDERS, backend.file(orders(*STOCK)), {"content": "first"})
    return backend


def test_a_replaced_table_holds_the_file_exactly(backend: Backend) -> None:
    rows = pa.Table.from_pylist(EVERY_KIND, SCHEMA)
    backend.warehouse.replace_rows(KINDS, backend.file(rows), {})
    assert kept(backend, "kinds") == sorted(EVERY_KIND, key=lambda row: row["id"])
    assert backend.warehouse.read_rows("kinds").sort_by("id").to_pylist() == kept(backend, "kinds")


def test_a_table_in_memory_is_stored_as_a_file_is(backend: Backend) -> None:
    backend.warehouse.replace_rows(KINDS, pa.Table.from_pylist(EVERY_KIND, SCHEMA), {"content": "first"})
    assert kept(backend, "kinds") == sorted(EVERY_KIND, key=lambda row: row["id"])
    assert backend.warehouse.read_state("kinds") == {"content": "first"}


def test_staged_rows_are_stored_as_a_file_is_whole_or_by_a_window(stocked: Backend, tmp_path: Path) -> None:
    with stocked.warehouse.staging(tmp_path, 256) as area:
        for name, for_warehouse in (("whole", True), ("month", False)):
            staged = area.rows(name, for_warehouse)
            with area.cursor() as connection:
                connection.register("stock", orders(*STOCK))
                connection.execute(f"create table {staged.relation} as from stock")
            whole = name == "whole"
            rows = staged if whole else replace(staged, condition=AS_FEBRUARY)
            if not whole:
                assert stocked.warehouse.months_with_keys(ORDERS, ["id"], rows, FEBRUARY, MARCH) == []
            stocked.warehouse.replace_rows(
                ORDERS, rows, {"content": name}, None if whole else (FEBRUARY, MARCH)
            )
            assert kept_orders(stocked) == STOCK
            assert stocked.warehouse.read_state("orders") == {"content": name}
        refused = area.rows("refused", for_warehouse=True)
        area.connection.execute(f"create table {refused.relation} as select 1 as other")
        with pytest.raises(WarehouseError, match="orders: the file has the columns"):
            stocked.warehouse.replace_rows(ORDERS, refused, {})
    assert stocked.warehouse.tables() == {"orders"}
    assert kept_orders(stocked) == STOCK


def test_an_answer_has_the_types_of_the_table(backend: Backend) -> None:
    backend.warehouse.replace_rows(KINDS, backend.file(pa.Table.from_pylist(EVERY_KIND, SCHEMA)), {})
    answer = backend.warehouse.query(f"select * from {backend.warehouse.quoted_name('kinds')}")
    without_price = [name for name in SCHEMA.names if name != "price"]
    assert [(name, answer.schema.field(name).type) for name in without_price] == [
        (name, SCHEMA.field(name).type) for name in without_price
    ]
    assert pa.types.is_decimal128(answer.schema.field("price").type)


def test_a_table_is_replaced_whole(stocked: Backend) -> None:
    stocked.warehouse.replace_rows(ORDERS, stocked.file(orders(("z", FIRST_OF_MARCH, 9))), {})
    assert kept_orders(stocked) == [("z", FIRST_OF_MARCH, 9)]


def test_a_table_may_be_replaced_by_one_of_other_columns(stocked: Backend) -> None:
    schema = pa.schema({"id": pa.string(), "at": pa.timestamp("us"), "amount": pa.string()})
    shape = TableShape("orders", schema, partitioned_by="at", clustered_by=("id", "amount"))
    stocked.warehouse.replace_rows(
        shape, stocked.file(pa.table([["z"], [FIRST_OF_MARCH], ["lots"]], schema)), {}
    )
    assert kept_orders(stocked) == [("z", FIRST_OF_MARCH, "lots")]


def test_the_note_is_kept_with_the_table_and_replaced_with_it(stocked: Backend) -> None:
    assert stocked.warehouse.read_state("orders") == {"content": "first"}
    stocked.warehouse.replace_rows(
        ORDERS, stocked.file(nothing()), {"content": "second", "more": [1, None, {}]}
    )
    assert stocked.warehouse.read_state("orders") == {"content": "second", "more": [1, None, {}]}
    stocked.warehouse.replace_rows(ORDERS, stocked.file(nothing()), {})
    assert stocked.warehouse.read_state("orders") == {}


def test_a_note_and_a_description_may_say_anything(backend: Backend) -> None:
    shape = TableShape("kinds", SCHEMA, AWKWARD)
    note = {AWKWARD: AWKWARD, "nested": {"list": [AWKWARD]}, "long": "x" * 2048}
    backend.warehouse.replace_rows(shape, backend.file(nothing(SCHEMA)), note)
    assert backend.warehouse.read_state("kinds") == note


def test_a_window_replaces_just_itself(stocked: Backend) -> None:
    new = stocked.file(orders(("x", datetime(2026, 2, 14), 20)))
    stocked.warehouse.replace_rows(ORDERS, new, {}, (FEBRUARY, MARCH))
    others = [row for row in STOCK if row[0] not in "bc"]
    assert kept_orders(stocked) == [*others, ("x", datetime(2026, 2, 14), 20)]


def test_a_window_takes_in_its_first_instant_and_not_its_end(stocked: Backend) -> None:
    stocked.warehouse.replace_rows(ORDERS, stocked.file(nothing()), {}, (FEBRUARY, MARCH))
    assert kept_orders(stocked) == [row for row in STOCK if row[0] not in "bc"]


def test_a_window_of_several_months_is_one_replacement(stocked: Backend) -> None:
    new = stocked.file(orders(("x", FIRST_OF_FEBRUARY, 1), ("y", FIRST_OF_MARCH, 2)))
    stocked.warehouse.replace_rows(ORDERS, new, {}, (JANUARY, date(2026, 4, 1)))
    assert kept_orders(stocked) == [("e", None, 5), ("x", FIRST_OF_FEBRUARY, 1), ("y", FIRST_OF_MARCH, 2)]


def test_a_window_loaded_again_leaves_the_same_rows(stocked: Backend) -> None:
    new = stocked.file(orders(("b", FIRST_OF_FEBRUARY, 2), ("c", LAST_OF_FEBRUARY, 3)))
    for _ in range(2):
        stocked.warehouse.replace_rows(ORDERS, new, {}, (FEBRUARY, MARCH))
        assert kept_orders(stocked) == STOCK


def test_a_window_of_no_table_makes_one(backend: Backend) -> None:
    new = backend.file(orders(("b", FIRST_OF_FEBRUARY, 2)))
    backend.warehouse.replace_rows(ORDERS, new, {}, (FEBRUARY, MARCH))
    assert kept_orders(backend) == [("b", FIRST_OF_FEBRUARY, 2)]
    assert backend.warehouse.read_state("orders") == {}
    backend.warehouse.replace_rows(ORDERS, backend.file(nothing()), {}, (FEBRUARY, MARCH))
    assert kept_orders(backend) == []


def test_the_note_of_a_window_takes_the_place_of_the_tables(stocked: Backend) -> None:
    for note in ({"content": "second", "more": [1, None, {}]}, {AWKWARD: AWKWARD}, {}):
        stocked.warehouse.replace_rows(ORDERS, stocked.file(nothing()), note, (FEBRUARY, MARCH))
        assert stocked.warehouse.read_state("orders") == note


def test_a_window_of_no_table_keeps_its_note(backend: Backend) -> None:
    path = backend.file(orders(("b", FIRST_OF_FEBRUARY, 2)))
    backend.warehouse.replace_rows(ORDERS, path, {"content": "a month"}, (FEBRUARY, MARCH))
    assert backend.warehouse.read_state("orders") == {"content": "a month"}


def make_view(backend: Backend, name: str = "some_orders", of: str = "orders") -> None:
    relation = backend.warehouse.quoted_name
    backend.warehouse.query(f"create view {relation(name)} as select * from {relation(of)} where amount > 2")


def test_the_notes_of_all_tables_and_views_are_told_at_once(stocked: Backend) -> None:
    stocked.warehouse.replace_rows(KINDS, stocked.file(nothing(SCHEMA)), {"content": AWKWARD})
    make_view(stocked)
    assert stocked.warehouse.read_states() == {
        "orders": {"content": "first"},
        "kinds": {"content": AWKWARD},
        "some_orders": {},
    }


def test_there_are_no_notes_before_there_are_tables(backend: Backend) -> None:
    assert backend.warehouse.read_states() == {}


def test_notes_are_kept_with_tables_and_views_that_there_are(stocked: Backend) -> None:
    make_view(stocked)
    stocked.warehouse.replace_rows(KINDS, stocked.file(nothing(SCHEMA)), {"content": "as it was"})
    notes = {"orders": {"content": "second"}, "some_orders": {AWKWARD: AWKWARD}}
    stocked.warehouse.write_states({**notes, "nowhere": {"content": "of nothing"}})
    assert stocked.warehouse.read_states() == {**notes, "kinds": {"content": "as it was"}}
    assert stocked.warehouse.read_state("some_orders") == {AWKWARD: AWKWARD}
    assert kept_orders(stocked) == STOCK
    stocked.warehouse.write_states({"orders": {}, "some_orders": {}})
    assert stocked.warehouse.read_states() == {
        "orders": {},
        "some_orders": {},
        "kinds": {"content": "as it was"},
    }


def test_a_relation_that_is_replaced_by_hand_has_no_note(stocked: Backend) -> None:
    relation = stocked.warehouse.quoted_name("orders")
    stocked.warehouse.query(
        f"create or replace table {relation} as select * from {relation} where amount > 2"
    )
    assert stocked.warehouse.read_states() == {"orders": {}}
    make_view(stocked)
    stocked.warehouse.write_states({"some_orders": {"content": "of the view"}})
    relation = stocked.warehouse.quoted_name("some_orders")
    stocked.warehouse.query(f"create or replace view {relation} as select 1 as id")
    assert stocked.warehouse.read_states() == {"orders": {}, "some_orders": {}}


def test_an_empty_file_makes_an_empty_table(backend: Backend) -> None:
    backend.warehouse.replace_rows(KINDS, backend.file(nothing(SCHEMA)), {"content": "none"})
    answer = backend.warehouse.query(f"select * from {backend.warehouse.quoted_name('kinds')}")
    assert (answer.num_rows, answer.schema.names) == (0, SCHEMA.names)
    assert backend.warehouse.row_count("kinds") == 0
    assert backend.warehouse.read_state("kinds") == {"content": "none"}


@pytest.mark.parametrize(
    "other",
    [
        FACTS.append(pa.field("more", pa.int64())),
        FACTS.remove(2),
        pa.schema([FACTS.field("at"), FACTS.field("id"), FACTS.field("amount")]),
        FACTS.set(2, pa.field("amount", pa.float64())),
        FACTS.set(1, pa.field("at", pa.timestamp("us", "UTC"))),
    ],
    ids=["one more", "one less", "another order", "another type", "a time zone"],
)
def test_a_file_of_other_columns_changes_nothing(stocked: Backend, other: pa.Schema) -> None:
    path = stocked.file(other.empty_table())
    with pytest.raises(WarehouseError, match="orders: the file has the columns"):
        stocked.warehouse.replace_rows(ORDERS, path, {})
    with pytest.raises(WarehouseError, match="orders: the file has the columns"):
        stocked.warehouse.replace_rows(ORDERS, path, {}, (FEBRUARY, MARCH))
    assert kept_orders(stocked) == STOCK
    assert stocked.warehouse.read_state("orders") == {"content": "first"}


def test_a_damaged_file_changes_nothing(stocked: Backend) -> None:
    path = stocked.file(orders(*STOCK))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(WarehouseError, match="cannot be read as parquet"):
        stocked.warehouse.replace_rows(ORDERS, path, {})
    assert kept_orders(stocked) == STOCK


def test_a_file_that_is_damaged_inside_changes_nothing(stocked: Backend) -> None:
    path = stocked.file(orders(*[(str(n), FIRST_OF_FEBRUARY, n) for n in range(1000)]))
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(bytes(content))
    with pytest.raises(WarehouseError):
        stocked.warehouse.replace_rows(ORDERS, path, {})
    with pytest.raises(WarehouseError):
        stocked.warehouse.replace_rows(ORDERS, path, {}, (FEBRUARY, MARCH))
    assert kept_orders(stocked) == STOCK
    assert stocked.warehouse.tables() == {"orders"}


def test_a_window_that_does_not_fit_the_table_changes_nothing(stocked: Backend) -> None:
    schema = FACTS.set(2, pa.field("amount", pa.string()))
    shape = TableShape("orders", schema, partitioned_by="at")
    path = stocked.file(pa.table([["x"], [FIRST_OF_FEBRUARY], ["lots"]], schema))
    with pytest.raises(WarehouseError):
        stocked.warehouse.replace_rows(shape, path, {}, (FEBRUARY, MARCH))
    assert kept_orders(stocked) == STOCK


def test_tables_are_told_by_name(stocked: Backend) -> None:
    assert stocked.warehouse.tables() == {"orders"}
    stocked.warehouse.replace_rows(KINDS, stocked.file(nothing(SCHEMA)), {})
    assert stocked.warehouse.tables() == {"orders", "kinds"}


def test_a_dropped_table_is_gone_and_may_be_dropped_again(stocked: Backend) -> None:
    for name in ("orders", "orders"):
        stocked.warehouse.drop_relation(name)
    assert stocked.warehouse.tables() == set()


def test_a_dropped_view_is_gone(stocked: Backend) -> None:
    make_view(stocked)
    stocked.warehouse.drop_relation("some_orders")
    assert stocked.warehouse.tables() == {"orders"}


def test_rows_are_counted(stocked: Backend) -> None:
    assert stocked.warehouse.row_count("orders") == 5
    stocked.warehouse.replace_rows(ORDERS, stocked.file(orders(*STOCK[:2])), {})
    assert stocked.warehouse.row_count("orders") == 2


def test_rows_are_counted_anew_after_a_window(stocked: Backend) -> None:
    stocked.warehouse.replace_rows(ORDERS, stocked.file(nothing()), {}, (FEBRUARY, MARCH))
    assert stocked.warehouse.row_count("orders") == 3


def test_keys_that_a_table_has_beside_a_window_are_found_by_month(stocked: Backend) -> None:
    def months(key: Sequence[str], *ids: str) -> Sequence[date]:
        file = stocked.file(orders(*[(id, FIRST_OF_FEBRUARY, 4) for id in ids]))
        return stocked.warehouse.months_with_keys(ORDERS, key, file, FEBRUARY, MARCH)

    assert months(["id"], "d", "a", "b", "e", "new") == [JANUARY, MARCH]
    assert months(["id"], "b", "c", "new") == []
    assert months(["id", "amount"], "d", "a") == [MARCH]


@pytest.mark.parametrize("deleted", [pa.bool_(), pa.timestamp("us")], ids=["a flag", "a time"])
def test_rows_that_changed_replace_those_of_their_keys(backend: Backend, deleted: pa.DataType) -> None:
    schema = FACTS.append(pa.field("gone", deleted))
    shape = replace(ORDERS, schema=schema, key=("id",), deleted="gone")
    true = True if pa.types.is_boolean(deleted) else FIRST_OF_MARCH

    def file(*rows: tuple[object, ...]) -> Path:
        return backend.file(pa.table(dict(zip(schema.names, zip(*rows, strict=True), strict=True)), schema))

    backend.warehouse.replace_rows(shape, file(*[(*row, None) for row in STOCK]), {"content": "first"})
    changed = file(
        ("a", FIRST_OF_MARCH, 10, None),
        ("b", FIRST_OF_FEBRUARY, 20, None),
        ("c", LAST_OF_FEBRUARY, 3, true),
        ("new", FIRST_OF_MARCH, 5, None),
        ("never there", FIRST_OF_MARCH, 5, true),
    )
    existing = backend.folder / "existing.parquet"
    backend.warehouse.save_rows_with_keys(shape, changed, existing)
    assert sorted(tuple(row.values()) for row in pq.read_table(existing).to_pylist()) == [
        (*row, None) for row in STOCK if row[0] in "abc"
    ]
    backend.warehouse.upsert_rows(shape, changed, {"content": "second"}, [JANUARY, FEBRUARY, MARCH])
    assert [row[:3] for row in kept_orders(backend)] == [
        ("a", FIRST_OF_MARCH, 10),
        ("b", FIRST_OF_FEBRUARY, 20),
        *STOCK[3:],
        ("new", FIRST_OF_MARCH, 5),
    ]
    assert backend.warehouse.read_state("orders") == {"content": "second"}


def test_a_snapshot_without_rows_of_the_keys_takes_new_rows(backend: Backend) -> None:
    shape = TableShape("orders", FACTS, "Orders.", key=("id",))
    backend.warehouse.replace_rows(shape, backend.file(orders(*STOCK[:2])), {})
    new, existing = backend.file(orders(("z", FIRST_OF_MARCH, 9))), backend.folder / "existing.parquet"
    for table in (shape, replace(shape, partitioned_by="at")):
        backend.warehouse.save_rows_with_keys(table, new, existing)
        assert pq.read_table(existing).num_rows == 0
    backend.warehouse.upsert_rows(shape, new, {})
    assert kept_orders(backend) == [*STOCK[:2], ("z", FIRST_OF_MARCH, 9)]


def test_questions_in_a_row_see_what_is_written_meanwhile(stocked: Backend) -> None:
    with stocked.warehouse.connected():
        assert stocked.warehouse.row_count("orders") == 5
        stocked.warehouse.replace_rows(ORDERS, stocked.file(orders(*STOCK[:2])), {"content": "fewer"})
        assert stocked.warehouse.read_state("orders") == {"content": "fewer"}
        assert kept_orders(stocked) == STOCK[:2]


def test_a_question_that_fails_leaves_the_next_ones_their_answers(stocked: Backend) -> None:
    with pytest.raises(WarehouseError, match="nowhere"), stocked.warehouse.connected():
        stocked.warehouse.row_count("nowhere")
    with stocked.warehouse.connected():
        with pytest.raises(WarehouseError, match="nowhere"):
            stocked.warehouse.row_count("nowhere")
        assert stocked.warehouse.row_count("orders") == 5


def test_a_table_that_is_not_there_has_no_note_and_cannot_be_counted(backend: Backend) -> None:
    assert backend.warehouse.tables() == set()
    assert backend.warehouse.read_state("nowhere") == {}
    with pytest.raises(WarehouseError, match="nowhere"):
        backend.warehouse.row_count("nowhere")


def test_names_are_quoted(backend: Backend) -> None:
    schema = pa.schema({"id": pa.string(), "select": pa.int64(), "Group": pa.timestamp("us")})
    shape = TableShape("order-1", schema, partitioned_by="Group", clustered_by=("select",))
    path = backend.file(pa.table([["a"], [1], [FIRST_OF_FEBRUARY]], schema))
    backend.warehouse.replace_rows(shape, path, {"content": "first"})
    backend.warehouse.replace_rows(shape, path, {"content": "odd"}, (FEBRUARY, MARCH))
    assert kept(backend, "order-1") == [{"id": "a", "select": 1, "Group": FIRST_OF_FEBRUARY}]
    assert backend.warehouse.read_state("order-1") == {"content": "odd"}
    assert backend.warehouse.row_count("order-1") == 1


def test_a_query_that_makes_no_sense_is_refused_in_words(backend: Backend) -> None:
    with pytest.raises(WarehouseError, match="nowhere"):
        backend.warehouse.query(f"select * from {backend.warehouse.quoted_name('nowhere')}")


def test_a_label_names_dataset_and_table(backend: Backend) -> None:
    assert backend.warehouse.qualified_name("orders").split(".")[2] == "orders"
    assert len(backend.warehouse.qualified_name("orders").split(".")) == 3


def test_a_record_is_read_elsewhere_and_leaves_nothing_once_it_is_empty(backend: Backend) -> None:
    warehouse = backend.warehouse
    assert warehouse.read_record("calls") == {}
    for record in ({"it's": {"id": "fc-1Ab"}}, {"other": {"id": "ünï"}}):
        warehouse.write_record("calls", record)
        assert replace(warehouse).read_record("calls") == record
    # BigQuery publishes relations with a state, which a record is not.
    assert warehouse.tables() == {"serverless_calls"}
    warehouse.write_record("calls", {})
    assert warehouse.read_record("calls") == {}
    assert warehouse.tables() == set()
