"""Random edits of source, models and warehouse: each run does what is needed and nothing else, and says why.

What is needed is found by brute force, from texts and rows. After every sound run the warehouse equals one
that was built from scratch. Set NOTHING_TWICE_SEED to try another seed.
"""

import os
import random
import re
from datetime import timedelta
from pathlib import Path

import pytest

from serverless_assets.warehouse.bigquery_release import RELEASES
from tests.backends.parity import compare
from tests.raw_tables import RAW_ITEMS, RAW_ORDERS, RAW_PRODUCTS, RAW_STORES
from tests.transformation.world import (
    MONTHS,
    READS,
    UNREAD,
    World,
    above,
    cents,
    edit,
    from_scratch,
    replace_rows,
    world,
)

pytestmark = pytest.mark.slow

STEPS = 6
SEEDS = [int(os.environ["NOTHING_TWICE_SEED"])] if "NOTHING_TWICE_SEED" in os.environ else [1, 2]


# ---- the edits: each returns the relations that are gone with it, and words that their reasons must have


def edit_a_model(world: World, chance: random.Random):
    path = next(world.project.rglob(f"{chance.choice(sorted(READS))}.sql"))
    edit(path, lambda text: re.sub(r"\nfrom final.*", f"\nfrom final where {chance.randrange(9)} < 9", text))
    return set(), {}


def add_an_unread_column(world: World, chance: random.Random):
    path = next(world.project.rglob(f"{chance.choice(sorted(READS))}.sql"))
    if UNREAD not in path.read_text():
        column = f"      - {{name: {UNREAD}, data_type: integer}}\n"
        edit(
            path, lambda text: text.replace("select *\nfrom final", f"select 7 as {UNREAD}, *\nfrom final", 1)
        )
        edit(
            path.with_suffix(".yml"),
            lambda text: text.replace("    columns:\n", f"    columns:\n{column}", 1),
        )
    return set(), {}


def edit_a_macro(world: World, chance: random.Random):
    zeros = "0" * chance.randrange(3)
    edit(
        world.project / "macros" / "cents_to_dollars.sql", lambda text: text.replace("'0.01", f"'{zeros}0.01")
    )
    return set(), {}


def edit_a_comment(world: World, chance: random.Random):
    path = next(world.project.rglob(f"{chance.choice(sorted(READS))}.sql"))
    edit(path, lambda text: text + f"\n-- said {chance.randrange(99)} times\n")
    return set(), {}


def add_a_late_order(world: World, chance: random.Random):
    id, at = f"late{chance.randrange(10**6)}", chance.choice(MONTHS) + timedelta(days=chance.randrange(27))
    # It may well be its customer's first.
    order = (id, f"c{chance.randrange(8)}", at, "s0", *cents(chance))
    replace_rows(world.source, RAW_ORDERS, lambda rows: [*rows, order])
    replace_rows(world.source, RAW_ITEMS, lambda rows: [*rows, (f"i-{id}", id, "p1")])
    return set(), {}


def correct_an_order(world: World, chance: random.Random):
    number = chance.randrange(len(world.source.rows["raw_orders"]))

    def corrected(rows):
        old = rows[number]
        return [*rows[:number], (*old[:4], *cents(chance)), *rows[number + 1 :]]

    replace_rows(world.source, RAW_ORDERS, corrected)
    return set(), {}


def empty_a_month(world: World, chance: random.Random):
    month = chance.choice(MONTHS)
    gone = {row[0] for row in world.source.rows["raw_orders"] if row[2].month == month.month}
    if len(gone) < len(world.source.rows["raw_orders"]):
        replace_rows(world.source, RAW_ORDERS, lambda rows: [row for row in rows if row[0] not in gone])
        replace_rows(world.source, RAW_ITEMS, lambda rows: [row for row in rows if row[1] not in gone])
    return set(), {}


def change_the_menu(world: World, chance: random.Random):
    replace_rows(
        world.source, RAW_PRODUCTS, lambda rows: [(*rows[0][:3], chance.randrange(2000), ""), *rows[1:]]
    )
    return set(), {}


def rename_a_store(world: World, chance: random.Random):
    replace_rows(
        world.source,
        RAW_STORES,
        lambda rows: [("s0", f"City {chance.randrange(99)}", *rows[0][2:]), *rows[1:]],
    )
    return set(), {}


def drop_a_relation(world: World, chance: random.Random):
    model = chance.choice([name for name in sorted(READS) if not name.startswith("stg_")])
    world.execute(f"drop table {world.name(model)}")
    return {model}, {model: "relation missing"}


def replace_a_relation(world: World, chance: random.Random):
    model = chance.choice([name for name in sorted(READS) if not name.startswith("stg_")])
    world.execute(
        f"create or replace table {world.name(model)} as select * from {world.name(model)} where false"
    )
    return {model}, {model: "relation replaced"}


EDITS = [
    edit_a_model, add_an_unread_column, edit_a_macro, edit_a_comment, add_a_late_order, add_a_late_order,
    correct_an_order, empty_a_month, change_the_menu, rename_a_store, drop_a_relation, replace_a_relation,
]  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_each_run_does_what_is_needed_and_ends_as_if_built_from_scratch(seed, tmp_path):
    chance = random.Random(seed)
    with world(tmp_path, chance) as here:
        live_through(here, chance, STEPS, f"seed {seed}", tmp_path, kills=0.2)


@pytest.mark.gcp
def test_it_is_so_on_bigquery(google, tmp_path):
    chance = random.Random(SEEDS[0])
    variables = {
        **os.environ,
        "SERVERLESS_ENV": "gcp",
        "SERVERLESS_BUCKET": "nothing-runs-twice",
        "SERVERLESS_COMPUTE": "subprocess",
        # The emulator is shared with other tests.
        "DBT_SCHEMA": "twice",
    }
    with world(tmp_path, chance, variables) as here:
        live_through(here, chance, 3, f"seed {SEEDS[0]}", tmp_path, kills=0.0)


def live_through(
    here: World, chance: random.Random, steps: int, told: str, folder: Path, kills: float
) -> None:
    """Change something, run, and look whether that was done which was needed; again and again."""
    assert built(here.run()) == set(READS)
    here.settle(set(READS))
    for step in range(steps):
        did, gone, reasons = [], set(), {}
        # Sometimes several things happen between two runs, and sometimes nothing.
        for happening in chance.choices(EDITS, k=chance.choice([0, 1, 1, 1, 2, 3])):
            now_gone, why = happening(here, chance)
            did.append(happening.__name__)
            gone |= now_gone
            reasons |= why
        what = f"{told}, step {step}: {did}"
        if chance.random() < kills:
            killed_after = chance.randrange(8, 40)
            here.kill_a_run(killed_after)
            what += f", a run killed after {killed_after} lines"
            # What the killed run had finished and kept account of need not be done again.
            assert built(here.run()) <= set(READS), what
        else:
            needed = here.needed(gone)
            outcomes = here.run()
            assert built(outcomes) == needed, f"{what}: {outcomes}"
            check_reasons(here, outcomes, reasons, gone, what)
        assert here.pipeline.summary["success"], f"{what}: {here.pipeline.summary}"
        here.settle(set(READS))
        again = from_scratch(here, folder / f"scratch-{step}")
        read = here.pipeline.parts.publisher.published.warehouse
        compared = list(compare(read, again.warehouse, ignored={RELEASES}))
        assert not [one for one in compared if one.differences], what


def test_after_failed_tests_only_what_failed_and_what_hangs_on_it_is_built(tmp_path):
    chance = random.Random(0)
    with world(tmp_path, chance) as here:
        here.run()
        sound = list(here.source.rows[RAW_ITEMS.name])
        (item, order, _), *others = sound
        replace_rows(here.source, RAW_ITEMS, lambda rows: [(item, order, "of no product"), *others])
        failed = here.run()
        assert failed["stg_order_items"]["status"] == "failed"
        assert built(failed) == set()
        hanging = {name for name in READS if "stg_order_items" in above(name)}
        assert {failed[name]["status"] for name in hanging} <= {"failed", "skipped"}
        # Nothing changed: the same is tried again, and fails again.
        again = here.run()
        assert again["stg_order_items"]["status"] == "failed"
        replace_rows(here.source, RAW_ITEMS, lambda rows: sound)
        mended = here.run()
        assert built(mended) >= {"stg_order_items"}
        assert built(mended) <= {"stg_order_items", *hanging}
        assert "last tests failed" in mended["stg_order_items"]["reason"]


def test_a_source_without_validators_is_downloaded_and_not_loaded(tmp_path):
    chance = random.Random(0)
    with world(tmp_path, chance) as here:
        here.source.has_validators = False
        here.run()
        here.source.sent = 0
        assert built(here.run()) == set()
        assert here.source.sent > 0
        assert here.pipeline.summary["assets"]["raw_orders"]["status"] == "reused"


def test_a_second_run_downloads_nothing(tmp_path):
    chance = random.Random(0)
    with world(tmp_path, chance) as here:
        here.run()
        here.source.sent = 0
        assert built(here.run()) == set()
        assert here.source.sent == 0


def built(outcomes) -> set[str]:
    return {name for name, found in outcomes.items() if found["status"] == "built"}


def check_reasons(here: World, outcomes, reasons, gone, told) -> None:
    """Each reason is true: it names what is so by the texts and rows that the model was last sound with."""
    for name, found in outcomes.items():
        reason = str(found["reason"])
        if found["status"] == "reused":
            assert reason == "unchanged", told
            continue
        if name in gone:
            assert reasons[name] in reason, f"{told}: {name}: {reason}"
            continue
        (rows, texts), (rows_then, texts_then) = here.inputs(name), here.sound_with[name]
        own_text = texts[name] != texts_then[name]
        assert own_text == ("SQL changed" in reason or "macro changed" in reason), f"{told}: {name}: {reason}"
        for parent in READS[name]:
            if parent.startswith("raw_"):
                changed = rows[parent] != rows_then[parent] or (
                    parent == "raw_items" and rows["dates"] != rows_then["dates"]
                )
                assert changed or f"new data ({parent}" not in reason, f"{told}: {name}: {reason}"
            else:
                differs = here.inputs(parent, of_reader=True) != here.read_then[parent]
                rebuilt = ", ".join(re.findall(r"upstream rebuilt \((.*?)\)", reason)).split(", ")
                assert differs == (parent in rebuilt), f"{told}: {name}: {reason}"
