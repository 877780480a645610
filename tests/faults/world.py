"""The small world of the campaign: a shop of some months, a home with one green run, and what is compared."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb

from tests.faults.processes import run
from tests.ingestion.shop import Row, Shop, shop

FIRST_DAY, LAST_DAY = date(2026, 3, 1), date(2026, 9, 30)
# A week that the source may have beside them.
NEW_DAYS = date(2026, 10, 1), date(2026, 10, 7)
# Orders by weekday, Monday first.
ORDERS_A_DAY = [2, 2, 3, 3, 4, 6, 5]
PRODUCTS: list[Row] = [
    ("JAF-001", "Toast", "jaffle", 1100, "Toast with cheese"),
    ("BEV-001", "Tea", "beverage", 500, None),
    ("JAF-002", "Pie", "jaffle", 700, ""),
]
STORES: list[Row] = [
    ("s0", "Brooklyn", datetime(2024, 1, 1), 0.08),
    ("s1", "Austin", datetime(2024, 1, 1), 0.0),
]
SUPPLIES: list[Row] = [
    ("u0", "plate", 12, False, "JAF-001"),
    ("u1", "cup", 7, True, "BEV-001"),
    ("u2", "box", 9, False, "JAF-002"),
]
TAX = {row[0]: row[3] for row in STORES}
PRICE = {row[0]: row[3] for row in PRODUCTS}
# Which run made a forecast, and when, is no part of what it says.
ABOUT_THE_RUN = {"forecast_run", "forecast_made_on"}


def orders_of(day: date) -> tuple[list[Row], list[Row]]:
    """The orders and the items of one day; the same whenever it is asked."""
    orders, items = [], []
    busy = 1 + (day.toordinal() * 7919) % 3 // 2
    for n in range(ORDERS_A_DAY[day.weekday()] + busy):
        number = day.toordinal() * 31 + n
        id, store = f"o-{day:%Y%m%d}-{n}", f"s{number % 2}"
        skus = [PRODUCTS[(number * (m + 3)) % 3][0] for m in range(1 + number % 2)]
        items += [(f"{id}-{m}", id, sku) for m, sku in enumerate(skus)]
        subtotal = sum(PRICE[sku] for sku in skus)
        tax = int(subtotal * TAX[store])
        at = datetime(day.year, day.month, day.day, 8 + n, number % 60)
        orders.append((id, f"c{number % 12}", at, store, subtotal, tax, subtotal + tax))
    return orders, items


def add_days(source: Shop, first: date, last: date) -> None:
    """Let the shop be open from the first to the last of these days."""
    for number in range(first.toordinal(), last.toordinal() + 1):
        orders, items = orders_of(date.fromordinal(number))
        source.rows["raw_orders"] += orders
        source.rows["raw_items"] += items


def correct(source: Shop, day: date, cents: int = 250) -> None:
    """Correct the tax of a day's first order."""
    rows = source.rows["raw_orders"]
    n = next(n for n, row in enumerate(rows) if row[2].date() == day)
    row = rows[n]
    rows[n] = (*row[:5], row[5] + cents, row[6] + cents)


def small_shop(first: date = FIRST_DAY, last: date = LAST_DAY) -> Shop:
    """A shop that is not open yet: some orders on each day."""
    source = Shop(
        rows={
            "raw_customers": [(f"c{n}", f"Customer {n}") for n in range(12)],
            "raw_orders": [],
            "raw_items": [],
            "raw_products": list(PRODUCTS),
            "raw_stores": list(STORES),
            "raw_supplies": list(SUPPLIES),
        }
    )
    add_days(source, first, last)
    return source


@dataclass
class World:
    """A source on a socket, a home for runs, and a folder for temporary files that nobody else writes to."""

    source: Shop
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def output(self) -> Path:
        return self.folder / "output.txt"

    @property
    def variables(self) -> dict[str, str]:
        outside = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SERVERLESS_", "DBT_", "DAGSTER_"))
        }
        return {
            **outside,
            "SERVERLESS_HOME": str(self.home),
            "SERVERLESS_DATASET_URL": self.source.url,
            "SERVERLESS_FIRST_MONTH": f"{FIRST_DAY:%Y-%m}",
            "TMPDIR": str(self.temporary),
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, *words: str, **variables: str) -> tuple[int, str]:
        """`serverless run` to its end: the exit code and what it printed."""
        return run(["run", *words], {**self.variables, **variables}, self.output)

    def put(self, template: Path) -> None:
        """Begin anew with a copy of a home, which has the path of every other copy: dbt parses it once."""
        for path in (self.home, self.temporary):
            shutil.rmtree(path, ignore_errors=True)
        self.temporary.mkdir()
        shutil.copytree(template, self.home, symlinks=True)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Give the source its rows back at the end."""
        rows = {name: list(table) for name, table in self.source.rows.items()}
        try:
            yield
        finally:
            self.source.rows = rows

    @contextmanager
    def a_week_later(self) -> Iterator[None]:
        """Let the source have a week of new orders and a correction of an old one, and take both back."""
        with self.restored():
            add_days(self.source, *NEW_DAYS)
            correct(self.source, LAST_DAY.replace(month=5, day=9))
            yield

    def published(self, query: str) -> list[tuple[Any, ...]]:
        """The answer to a query on the published warehouse."""
        with duckdb.connect(str(self.home / "warehouse.duckdb"), read_only=True) as connection:
            return connection.execute(query).fetchall()

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "runs" / "latest.json").read_text()))


@contextmanager
def world(folder: Path, source: Shop | None = None) -> Iterator[World]:
    """A world that has not seen a run."""
    (folder / "tmp").mkdir(parents=True)
    with shop(source or small_shop()) as opened:
        yield World(opened, folder)


def warehouse_content(path: Path) -> dict[str, str]:
    """A hash of the rows of every relation in a DuckDB file."""
    with duckdb.connect(str(path), read_only=True) as connection:
        names = connection.execute(
            "select table_schema, table_name from information_schema.tables order by all"
        ).fetchall()
        return {f"{schema}.{name}": _rows_hash(connection, schema, name) for schema, name in names}


def _rows_hash(connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> str:
    found = connection.execute(f'select * from "{schema}"."{name}"')
    columns = [column[0] for column in found.description]
    rows = sorted(
        repr(
            [_plain(value) for column, value in zip(columns, row, strict=True) if column not in ABOUT_THE_RUN]
        )
        for row in found.fetchall()
    )
    return hashlib.sha256("\n".join([repr(columns), *rows]).encode()).hexdigest()[:12]


def _plain(value: object) -> object:
    # Sums of floats differ in their last digits by the order of the rows.
    return f"{value:.6g}" if isinstance(value, float) else value


@dataclass(frozen=True)
class EndState:
    """What a home shows to people, and which files it is made of."""

    relations: Mapping[str, str]
    artifacts: frozenset[str]
    files: frozenset[str]

    def differences(self, reference: "EndState") -> Iterator[str]:
        """What is lost or wrong compared with a home that was never disturbed."""
        for name in sorted({*self.relations, *reference.relations}):
            if self.relations.get(name) != reference.relations.get(name):
                state = "is missing" if name not in self.relations else "has other rows"
                yield f"{name} {state if name in reference.relations else 'should not be there'}"
        for name in sorted(reference.artifacts - self.artifacts):
            yield f"the artifact {name} is missing"


def end_state(home: Path) -> EndState:
    """What is published, and the kinds of files below `home`."""
    current = (home / "current").resolve()
    return EndState(
        warehouse_content(current / "warehouse.duckdb"),
        frozenset(_kind(path.name) for path in (current / "artifacts").rglob("*") if path.is_file()),
        frozenset(
            _kind(str(path.relative_to(home)))
            for path in home.rglob("*")
            if not path.is_dir() or path.is_symlink()
        ),
    )


# Run ids, hashes, times and dates.
NAMED_BY_RUN = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d{8}T\d{6}(\.\d+)?Z|\b[0-9a-f]{8,64}\b"
    r"|\d{4}-\d{2}-\d{2}"
)


def _kind(name: str) -> str:
    return NAMED_BY_RUN.sub("*", name)


def left_overs(home: Path, temporary: Path, reference: EndState) -> list[str]:
    """Files that a home which was never disturbed does not have, and everything in the temporary folder."""
    # Dagster and dbt keep files of their own; a log of a failure is there to be read.
    expected = ("dagster/", "dbt/", "logs/")
    strange = [path for path in end_state(home).files - reference.files if not path.startswith(expected)]
    return sorted([*strange, *(f"TMPDIR/{path.relative_to(temporary)}" for path in temporary.rglob("*"))])
