"""A reader in a process of its own: `python -m tests.faults.reader WHAT HOME STOP`. A dataset has no home.

It reads what is published again and again until the file STOP exists, then prints how often and
what was wrong.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from serverless_assets.project_root import PROJECT_ROOT
from tests.backends.stock import STOCK

CITIES = {
    "raw_stores": "name",
    "stg_locations": "location_name",
    "orders": "location_name",
    "sum_revenue_per_city": "location_name",
}
REVENUE = """
    select
        (select sum(order_total) from dwh.raw_orders) / 100.0,
        (select sum(revenue_usd) from dwh.daily_revenue)
"""
FORECAST = "select ds, round(yhat, 6) from dwh.order_forecast order by ds"


def pipeline(home: Path) -> Iterator[str]:
    """What is wrong with a release of the pipeline."""
    # A file that is open by its own name is of one release.
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        names = {
            table: connection.execute(f"select distinct {column} from dwh.{table} order by 1").fetchall()
            for table, column in CITIES.items()
        }
        raw, revenue = connection.execute(REVENUE).fetchall()[0]
    if any(found != names["raw_stores"] for found in names.values()):
        yield f"tables of two releases: {names}"
    if abs(float(raw) - float(revenue)) > 0.001:
        yield f"half a run: orders of {raw}, revenue of {revenue}"
    # Files that belong together: `current` is resolved once.
    release = (home / "current").resolve()
    with duckdb.connect(str(release / "warehouse.duckdb"), read_only=True) as connection:
        table = connection.execute(FORECAST).fetchall()
    file = pq.read_table(release / "artifacts" / "forecast.parquet").to_pylist()
    if sorted((row["ds"], round(row["yhat"], 6)) for row in file) != table:
        yield "the forecast's file and table are of two releases"
    if not (release / "artifacts" / "forecast.html").read_text().rstrip().endswith("</html>"):
        yield "half a report"


def numbers(home: Path) -> Iterator[str]:
    """What is wrong with a release whose warehouse and report both are one number."""
    release = (home / "current").resolve()
    with duckdb.connect(str(release / "warehouse.duckdb"), read_only=True) as connection:
        (number,) = connection.execute("select n from numbers").fetchall()[0]
    if (report := (release / "artifacts" / "forecast.html").read_text()) != str(number):
        yield f"two releases: {number} and {report}"
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        connection.execute("select n from numbers").fetchall()
    if not (home / "artifacts" / "forecast.html").read_text().isdecimal():
        yield "half a report"


def shop(dataset: Path) -> Iterator[str]:
    """What is wrong with the tables of a shop on BigQuery, of tests/backends/released_shop.py."""
    from google.cloud import bigquery

    with bigquery.Client() as client:
        amounts = {
            table: [row["amount"] for row in client.query(f"select amount from `{dataset}.{table}`").result()]
            for table in ("raw_orders", "raw_items", "some_orders")
        }
    numbers = {amount for rows in amounts.values() for amount in rows}
    if any(len(rows) != len(STOCK) or len(set(rows)) > 1 for rows in amounts.values()):
        yield f"half a table: {amounts}"
    if max(numbers) - min(numbers) > 1:
        yield f"tables of releases that did not follow one another: {amounts}"


READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    "pipeline": pipeline,
    "numbers": numbers,
    "shop": shop,
}


class Readers:
    """Processes that read again and again until they are asked what they saw."""

    def __init__(self, what: str, home: Path, stop: Path, number: int = 2) -> None:
        self._stop = stop
        words = [sys.executable, "-m", "tests.faults.reader", what, str(home), str(stop)]
        self._processes = [
            subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT)
            for _ in range(number)
        ]

    def stop(self) -> list[dict[str, Any]]:
        """Stop them: how many `reads` each made, and the `problems` that it saw."""
        self._stop.touch()
        return [json.loads(process.communicate(timeout=120)[0]) for process in self._processes]


def read_until(stop: Path, home: Path, what: str) -> dict[str, object]:
    """Read until `stop` exists.

    A release stays until two more have been published. Where numbers are published many times a second, a
    release may go while it is read.
    """
    reads, problems = 0, []
    while not stop.exists():
        reads += 1
        release = (home / "current").resolve()
        try:
            problems += list(READERS[what](home))
        except Exception as error:
            if what != "numbers" or release == (home / "current").resolve():
                problems.append(f"{type(error).__name__}: {error}")
        # A read of the pipeline takes as long as this pause: the runs keep most of the processors.
        time.sleep(0.02 if what == "numbers" else 0.2)
    return {"reads": reads, "problems": problems}


if __name__ == "__main__":
    print(json.dumps(read_until(Path(sys.argv[3]), Path(sys.argv[2]), sys.argv[1])))
