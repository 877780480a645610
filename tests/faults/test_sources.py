"""A source that fails or sends nonsense: the old table stays, and one plain sentence says why."""

import hashlib
import random
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serverless_assets.ingestion.fetch_result import Failed
from serverless_assets.ingestion.load import LoadResult, load_tables
from serverless_assets.ingestion.source import HttpSource
from serverless_assets.ingestion.state import TableState
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from tests.faults.conftest import ROUNDS
from tests.faults.tally import Attempt, Tally
from tests.faults.world import STORES, World, end_state, left_overs
from tests.ingestion import scripted
from tests.ingestion.http_faults import HTTP_FAULTS
from tests.ingestion.scripted import Answer, body, shop, status
from tests.ingestion.shop import Row
from tests.raw_tables import RAW_STORES

KIND = "faulty source"
EXCEPTION = re.compile(r"\b\w+(Error|Exception|Warning)\b|Traceback|<class |0x[0-9a-f]{6}")
STORE_COLUMNS = dict(RAW_STORES.columns)


def parquet(rows: list[Row], columns: Mapping[str, pa.DataType] = STORE_COLUMNS) -> bytes:
    arrays = [pa.array([row[n] for row in rows], kind) for n, kind in enumerate(columns.values())]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, names=list(columns)), sink)
    return bytes(sink.getvalue().to_pybytes())


GOOD = parquet(STORES)
HTML = b"<html><body>Please log in</body></html>"
OTHER_NAMES = {f"{name}_2": kind for name, kind in STORE_COLUMNS.items()}
AS_TEXT = dict.fromkeys(STORE_COLUMNS, pa.string())
FILES: dict[str, bytes] = {
    "no bytes": b"",
    "a login page": HTML,
    "a JSON error": b'{"error": "quota"}',
    "text with a parquet's ends": b"PAR1 and nothing else PAR1",
    "random bytes": bytes(range(256)) * 40,
    "the first half": GOOD[: len(GOOD) // 2],
    "without its first bytes": GOOD[100:],
    "a footer that promises too much": GOOD[:-8] + b"\xff\xff\xff\x7fPAR1",
    "no rows": parquet([]),
    "no columns": parquet([], {}),
    "other columns": parquet(STORES, OTHER_NAMES),
    "one column missing": parquet([row[:3] for row in STORES], dict(list(STORE_COLUMNS.items())[:3])),
    "dates that are text": parquet([tuple(map(str, row)) for row in STORES], AS_TEXT),
    "a key twice": parquet([*STORES, STORES[0]]),
    "a key that is null": parquet([*STORES, (None, "Nowhere", datetime(2024, 1, 1), 0.0)]),
    "a name of 2 MB": parquet([("s0", "x" * 2_000_000, datetime(2024, 1, 1), 0.0)]),
}
STATUSES = [
    *(201, 204, 206, 300, 304, 400, 401, 402, 403, 404, 405, 408, 409, 410, 418, 425, 429, 451),
    *(500, 501, 502, 503, 504, 507, 511, 599),
]
ANSWERS: dict[str, Answer] = {
    **{f"{code}": status(code) for code in STATUSES},
    **{name: body(content, length=len(content)) for name, content in FILES.items()},
    **{name: fault.answer for name, fault in HTTP_FAULTS.items()},
}


def load(warehouse: DuckDBWarehouse, url: str, scratch: Path) -> LoadResult | Failed:
    """Load one table as a run does."""
    source = HttpSource(url, attempts=2, first_pause_seconds=0.0, timeout_seconds=0.3)
    states = {name: TableState.from_json(state) for name, state in warehouse.read_states().items()}
    (result,) = load_tables([RAW_STORES], source, warehouse, None, scratch, lambda line: None, states, "run")
    return result


def rows_of(warehouse: DuckDBWarehouse) -> str:
    table = warehouse.query(f"select * from {warehouse.quoted_name(RAW_STORES.name)} order by id")
    return hashlib.sha256(repr(table.to_pylist()).encode()).hexdigest()


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> DuckDBWarehouse:
    """A warehouse with the table as it was before the source failed."""
    folder = tmp_path_factory.mktemp("sources")
    loaded = DuckDBWarehouse(folder / "warehouse.duckdb", "dwh")
    with shop(body(GOOD, length=len(GOOD))) as source:
        brought = load(loaded, source.url, folder)
    assert isinstance(brought, LoadResult), brought
    return loaded


def try_answer(answer: Answer, name: str, warehouse: DuckDBWarehouse, attempt: Tally, scratch: Path) -> None:
    before = rows_of(warehouse)
    with attempt(name) as fault, shop(answer) as source:
        url = source.url.replace("http://", f"http://{scripted.USER}:{scripted.PASSWORD}@")
        outcome = load(warehouse, f"{url}?token={scripted.TOKEN}", scratch)
        if rows_of(warehouse) != before:
            fault.loss("the table changed")
        if not isinstance(outcome, Failed):
            fault.silent("the answer was taken for a good one")
            return
        check_sentence(outcome.reason, fault)


def check_sentence(sentence: str, fault: Attempt) -> None:
    """Report what is wrong with an error's text."""
    if not sentence.strip().endswith((".", "?", "!")):
        fault.silent(f"no sentence: {sentence!r}")
    if found := EXCEPTION.search(sentence):
        fault.silent(f"an exception instead of words ({found[0]}): {sentence!r}")
    for secret in (scripted.USER, scripted.PASSWORD, scripted.TOKEN):
        if secret in sentence:
            fault.other(f"a secret is told: {sentence!r}")


def test_every_bad_answer_is_refused_in_a_sentence_and_the_table_stays(
    warehouse: DuckDBWarehouse, attempt: Tally, tmp_path: Path
) -> None:
    for name, answer in ANSWERS.items():
        try_answer(answer, name, warehouse, attempt, tmp_path)


def test_a_file_that_is_cut_anywhere_is_refused(
    warehouse: DuckDBWarehouse, attempt: Tally, chance: random.Random, tmp_path: Path
) -> None:
    for _ in range(10 * ROUNDS):
        kept = chance.randrange(len(GOOD))
        cut = GOOD[:kept]
        try_answer(body(cut, length=kept), f"{kept} of {len(GOOD)} bytes", warehouse, attempt, tmp_path)


# ---- whole runs


def twice(rows: dict[str, list[Row]]) -> None:
    """Every table has its first row twice."""
    for table in rows.values():
        table.append(table[0])


def empty(rows: dict[str, list[Row]]) -> None:
    """No table has any row."""
    for table in rows.values():
        table.clear()


def implausible_dates(rows: dict[str, list[Row]]) -> None:
    """Some orders are of the year 1, the year 9999 and next year."""
    for n, year in enumerate((1, 9999, 2199)):
        row = rows["raw_orders"][n]
        rows["raw_orders"][n] = (*row[:2], row[2].replace(year=year), *row[3:])


SENT: dict[Callable[[dict[str, list[Row]]], None], bool] = {
    twice: False,
    empty: False,
    implausible_dates: True,
}


@pytest.mark.parametrize("change", SENT, ids=lambda change: change.__name__)
def test_a_run_from_a_faulty_source_says_so_and_loses_nothing(
    place: World,
    template: Path,
    attempt: Tally,
    change: Callable[[dict[str, list[Row]]], None],
) -> None:
    with place.restored(), attempt(str(change.__doc__)) as fault:
        place.put(template)
        before = end_state(place.home)
        change(place.source.rows)
        code, text = place.run()
        if "Traceback" in text:
            fault.silent(f"a traceback: {text[-600:]}")
        after = end_state(place.home)
        if code:
            fault.loss(*after.differences(before))
            tables = ["raw_orders"] if change is implausible_dates else place.source.rows
            for table in tables:
                if not re.search(rf"failed +[^:\n]*\b{table}\b[^:\n]*: .+\.", text):
                    fault.silent(f"nothing is said of {table}: {text[-600:]}")
        elif not SENT[change]:
            fault.silent("the run succeeds and publishes")
        elif not re.search("implausible|future|set aside|out of range|left out", text):
            fault.silent(f"nothing is said of the rows: {text[-1500:]}")
    with attempt(f"the run after: {change.__doc__}") as fault:
        code, text = place.run()
        if code:
            fault.other(f"it ends with {code}: {text[-600:]}")
        fault.loss(*end_state(place.home).differences(before))
        fault.left_overs(left_overs(place.home, place.temporary, before))
