"""What loading raw tables costs beside the least that it can cost: `make bench-load`.

The limit is `curl` of six files and DuckDB's `create table as` of each, without any audit. Both read the same
files from a web server on this machine, in turn, each in a process of its own. `--orders 10000000` makes 25
million rows of it.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import duckdb

ID = "cast(uuid() as varchar)"
TABLES = {
    "raw_customers": f"select {ID} as id, 'Customer ' || n as name from range({{orders}} // 100) as r(n)",
    "raw_stores": f"select {ID} as id, 'Store ' || n as name, timestamp '2019-09-01' as opened_at,"
    " 0.06::double as tax_rate from range(6) as r(n)",
    "raw_products": "select 'JAF-' || n as sku, 'Jaffle ' || n as name, 'jaffle' as type, 1100 + n as price,"
    " 'A jaffle.' as description from range(10) as r(n)",
    "raw_supplies": "select 'SUP-' || n as id, 'Supply ' || n as name, 35 + n as cost,"
    " n % 2 = 0 as perishable, 'JAF-' || (n % 10) as sku from range(65) as r(n)",
    "raw_orders": f"select {ID} as id, {ID} as customer,"
    " timestamp '2021-01-01' + to_seconds(cast(n * (5 * 365 * 86400.0 / {orders}) as bigint)) as ordered_at,"
    " 'store-' || (n % 6) as store_id, 700 + n % 900 as subtotal, n % 60 as tax_paid,"
    " 700 + n % 900 + n % 60 as order_total from range({orders}) as r(n)",
    "raw_items": f"select {ID} as id, orders.id as order_id, 'JAF-' || (subtotal % 10) as sku"
    " from raw_orders as orders, range(2) as r(n) where n = 0 or subtotal % 2 = 0",
}


def write_files(folder: Path, orders: int) -> None:
    """Write a parquet file of each table of the bundled project."""
    with duckdb.connect(str(folder / "generated.duckdb")) as connection:
        for name, query in TABLES.items():
            connection.execute(f"create table {name} as {query.format(orders=orders)}")
            connection.execute(f"copy {name} to '{folder / name}.parquet' (format parquet)")
    (folder / "generated.duckdb").unlink()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder in a process of its own, whose time is nobody's."""
    command = [sys.executable, __file__, "serve", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def serve(folder: str) -> None:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    Thread(target=server.serve_forever).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)


def limit(url: str, home: str) -> None:
    """Download each file and make a table of it."""
    with timed(), duckdb.connect(f"{home}/warehouse.duckdb") as connection:
        for name in TABLES:
            path = f"{home}/{name}.parquet"
            subprocess.run(["curl", "-sSf", "-o", path, f"{url}/{name}.parquet"], check=True)
            connection.execute(f"create table {name} as from '{path}'")


def step(url: str, home: str) -> None:
    """Load the tables as a run's step does: fetch, audit, replace."""
    from serverless_assets.ingestion.catalog import DatedBy, RawTable
    from serverless_assets.ingestion.fetch import fetch_tables
    from serverless_assets.ingestion.load import LoadResult, load_table
    from serverless_assets.ingestion.source import HttpSource
    from serverless_assets.sample_shop.catalogue import SCHEMAS
    from serverless_assets.warehouse.duckdb import DuckDBWarehouse

    columns = {name: dict(zip(SCHEMAS[name].names, SCHEMAS[name].types, strict=True)) for name in TABLES}
    keys = {"raw_products": ("sku",), "raw_supplies": ("id", "sku")}
    tables = {name: RawTable(name, "", columns[name], keys.get(name, ("id",))) for name in TABLES}
    tables["raw_orders"] = orders = replace(tables["raw_orders"], event_time="ordered_at")
    dated_by = DatedBy(orders, "order_id")
    tables["raw_items"] = replace(tables["raw_items"], event_time="ordered_at", dated_by=dated_by)
    warehouse = DuckDBWarehouse(Path(home, "warehouse.duckdb"), "dwh")
    with timed():
        for fetched in fetch_tables(
            list(tables.values()), HttpSource(url), warehouse, None, Path(home), print
        ):
            loaded = load_table(warehouse, fetched, None, "run")
            assert isinstance(loaded, LoadResult), loaded.reason


@contextmanager
def timed() -> Iterator[None]:
    """Print the seconds of cpu, of this process and of those that it started, and of the clock."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    started, before = time.monotonic(), sum(usage.ru_utime + usage.ru_stime for usage in usages)
    yield
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    after = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    print(after - before, time.monotonic() - started)


def measured(contender: str, url: str, folder: Path) -> tuple[float, float, float]:
    """Run a contender in a process of its own; return seconds of cpu and wall, and its peak memory in MB."""
    with TemporaryDirectory(dir=folder) as home:
        command = [sys.executable, __file__, contender, url, home]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            *_, last = process.stdout.read().splitlines()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    cpu, wall = map(float, last.split())
    return cpu, wall, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with TemporaryDirectory(prefix="bench-") as folder:
        served = Path(folder, "served")
        served.mkdir()
        write_files(served, chosen.orders)
        size = sum(path.stat().st_size for path in served.iterdir())
        print(f"{chosen.orders * 5 // 2:,} rows, {size / 1e6:,.0f} MB; medians of {chosen.rounds}")
        figures: dict[str, list[tuple[float, float, float]]] = {"limit": [], "step": []}
        with serving(served) as url:
            for _ in range(chosen.rounds):
                for contender, runs in figures.items():
                    runs.append(measured(contender, url, Path(folder)))
    print(f"{'':<8}{'cpu':>10}{'wall':>10}{'peak':>10}")
    for contender, runs in figures.items():
        cpu, wall, peak = map(statistics.median, zip(*runs, strict=True))
        print(f"{contender:<8}{cpu:>8.1f} s{wall:>8.1f} s{peak:>7.0f} MB")
    ratios = [ours[0] / least[0] for least, ours in zip(*figures.values(), strict=True)]
    print(f"step: {statistics.median(ratios):.2f} times the limit's cpu")


if __name__ == "__main__":
    contenders = {"limit": limit, "step": step, "serve": serve}
    if len(sys.argv) > 1 and sys.argv[1] in contenders:
        contenders[sys.argv[1]](*sys.argv[2:])
    else:
        main()
