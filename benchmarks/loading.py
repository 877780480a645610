"""What loading six raw tables costs beside the plain tools: `make bench-load`.

The least is `curl` of each file and DuckDB's `create table as`, without any audit. `--orders 10000000` makes
25 million rows of it, and `--memory 256 1024` adds the step with these values of SERVERLESS_LOAD_MEMORY.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
from measure import Contender, compare, serving

ID = "cast(uuid() as varchar)"
TABLES = {
    "raw_customers": f"select {ID} as id, 'Customer ' || n as name from range({{orders}} // 100) as r(n)",
    "raw_stores": "select 'store-' || n as id, 'Store ' || n as name, timestamp '2019-09-01' as opened_at,"
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


def run_variables(url: str) -> dict[str, str]:
    """Return the settings with which `serverless run` reads these files into `{home}`."""
    first_month = {"SERVERLESS_FIRST_MONTH": "2021-01"}
    return {"SERVERLESS_HOME": "{home}", "SERVERLESS_DATASET_URL": url, **first_month}


def write_files(folder: Path, orders: int) -> None:
    """Write a parquet file of each table of the bundled project."""
    with duckdb.connect(str(folder / "generated.duckdb")) as connection:
        for name, query in TABLES.items():
            connection.execute(f"create table {name} as {query.format(orders=orders)}")
            connection.execute(f"copy {name} to '{folder / name}.parquet' (format parquet)")
    (folder / "generated.duckdb").unlink()


def least(url: str, home: str) -> None:
    """Download each file and make a table of it."""
    with duckdb.connect(f"{home}/warehouse.duckdb") as connection:
        for name in TABLES:
            connection.execute(f"create table {name} as from '{_downloaded(url, name, home)}'")


def step(url: str, home: str) -> None:
    """Load the tables as a run's step does: fetch, audit, replace."""
    from serverless_assets.ingestion.http_client import DownloadLimits
    from serverless_assets.ingestion.load import LoadResult, load_tables
    from serverless_assets.ingestion.raw_table import DatedBy, RawTable
    from serverless_assets.ingestion.source import HttpSource
    from serverless_assets.sample_shop.shop import SampleShop
    from serverless_assets.warehouse.duckdb import DuckDBWarehouse

    shop = SampleShop(end=date(2026, 10, 31))
    schemas = {name: shop.table(name, shop.start, shop.start).schema for name in TABLES}
    columns = {name: dict(zip(one.names, one.types, strict=True)) for name, one in schemas.items()}
    keys = {"raw_products": ("sku",), "raw_supplies": ("id", "sku")}
    tables = {name: RawTable(name, "", columns[name], keys.get(name, ("id",))) for name in TABLES}
    tables["raw_orders"] = orders = replace(tables["raw_orders"], event_time="ordered_at")
    dated_by = DatedBy(orders, "order_id")
    tables["raw_items"] = replace(tables["raw_items"], event_time="ordered_at", dated_by=dated_by)
    warehouse = DuckDBWarehouse(Path(home, "warehouse.duckdb"), "dwh")
    memory = os.environ.get("SERVERLESS_LOAD_MEMORY")
    source = HttpSource(url, limits=DownloadLimits(memory_mib=int(memory)) if memory else DownloadLimits())
    scratch = Path(home)
    for loaded in load_tables(list(tables.values()), source, warehouse, None, scratch, print, {}, "run"):
        assert isinstance(loaded, LoadResult), loaded.reason


def parse() -> None:
    """Have dbt parse the project, as an earlier run in the same home has."""
    from serverless_assets.environments import environment
    from serverless_assets.settings import Settings

    assert environment(Settings.from_environ()).raw_tables


def dlt(url: str, home: str) -> None:
    """Download each file and have dlt import it as it is."""
    import dlt
    import pyarrow.parquet as pq

    def table(name: str) -> object:
        def rows() -> object:
            path = _downloaded(url, name, home)
            schema = pq.read_schema(path).empty_table()
            yield dlt.mark.with_file_import(path, "parquet", pq.read_metadata(path).num_rows, hints=schema)

        return dlt.resource(rows, name=name)

    destination = dlt.destinations.duckdb(f"{home}/warehouse.duckdb")
    pipeline = dlt.pipeline("bench", home, destination=destination, dataset_name="dwh")
    pipeline.run([table(name) for name in TABLES], loader_file_format="parquet")


def pandas(url: str, home: str) -> None:
    """Read each file as a frame, and make a table of it."""
    import pandas as pd

    with duckdb.connect(f"{home}/warehouse.duckdb") as connection:
        for name in TABLES:
            frame = pd.read_parquet(f"{url}/{name}.parquet")
            connection.register("frame", frame)
            connection.execute(f"create table {name} as from frame")


def io_manager(url: str, home: str) -> None:
    """Read each file as a frame in an asset that Dagster's IO manager for DuckDB stores."""
    import dagster as dg
    import pandas as pd
    from dagster_duckdb_pandas import DuckDBPandasIOManager

    def table(name: str) -> dg.AssetsDefinition:
        return dg.asset(name=name)(lambda: pd.read_parquet(f"{url}/{name}.parquet"))

    storage = DuckDBPandasIOManager(database=f"{home}/warehouse.duckdb")
    dg.materialize([table(name) for name in TABLES], resources={"io_manager": storage})


def _downloaded(url: str, name: str, home: str) -> str:
    path = f"{home}/{name}.parquet"
    subprocess.run(["curl", "-sSf", "-o", path, f"{url}/{name}.parquet"], check=True)
    return path


CONTENDERS = {"least": least, "step": step, "dlt": dlt, "pandas": pandas, "io_manager": io_manager}
NAMES = {"least": "curl and DuckDB", "step": "the loading step", "io_manager": "Dagster's IO manager"}


def prepare_parsed(variables: Mapping[str, str], home: Path) -> None:
    """Parse the dbt project in a home, with the settings of the run."""
    environ = {name: value.format(home=home) for name, value in variables.items()}
    subprocess.run([sys.executable, __file__, "parse"], env={**os.environ, **environ}, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", nargs="*", default=[], help="MiB of SERVERLESS_LOAD_MEMORY.")
    parser.add_argument("--only", nargs="*", help="Contenders to leave the others out.")
    chosen = parser.parse_args()
    with TemporaryDirectory(prefix="bench-") as folder:
        served = Path(folder)
        write_files(served, chosen.orders)
        size = sum(path.stat().st_size for path in served.iterdir())
        with serving(served) as url:
            python = [sys.executable, __file__]
            quiet = {"RUNTIME__DLTHUB_TELEMETRY": "false"}
            contenders = [
                Contender(NAMES.get(name, name), [*python, name, url, "{home}"], quiet) for name in CONTENDERS
            ]
            serverless = Path(sys.executable).with_name("serverless")
            ours = run_variables(url)
            for memory in chosen.memory:
                limit = {"SERVERLESS_LOAD_MEMORY": memory}
                command = [*python, "step", url, "{home}"]
                contenders.append(Contender(f"the loading step, {memory} MiB", command, limit))
            ingest = [serverless, "run", "ingest"]
            contenders += [
                Contender("serverless run ingest", ingest, ours, partial(prepare_parsed, ours)),
                Contender("the same in a new project", ingest, ours),
            ]
            if chosen.only:
                contenders = [each for each in contenders if each.name in chosen.only]
            title = f"Loading {chosen.orders * 5 / 2e6:g} million rows, {size / 1e6:,.0f} MB"
            compare(title, contenders, chosen.rounds, NAMES["least"])


if __name__ == "__main__":
    if sys.argv[1:] == ["parse"]:
        parse()
    elif len(sys.argv) > 1 and sys.argv[1] in CONTENDERS:
        CONTENDERS[sys.argv[1]](*sys.argv[2:])
    else:
        main()
