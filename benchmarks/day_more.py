"""What loading and building cost after a static file grew by a day: `make bench-day-more`.

Two runs on 2.5 million rows, each in a process of its own: the first loads and builds everything, the second
starts from the files of a day later. A server of files has no months to ask for: both download all of them.
`python benchmarks/day_more.py ingest` leaves out the models.
"""

import json
import sys
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
from loading import run_variables, write_files
from measure import Contender, measure, serving

LAST_DAY = date(2025, 12, 29)
FACTS = ("raw_orders", "raw_items")


def cut(source: Path, target: Path, last_day: date) -> None:
    """Write the files to `target` as they were at the end of a day."""
    until = f"ordered_at < date '{last_day + timedelta(days=1)}'"
    orders = f"from '{source}/raw_orders.parquet' where {until}"
    items = f"from '{source}/raw_items.parquet' semi join ({orders}) as orders on order_id = orders.id"
    with duckdb.connect() as connection:
        for name, query in zip(FACTS, (orders, f"select id, order_id, sku {items}"), strict=True):
            connection.execute(f"copy ({query}) to '{target / name}.parquet' (format parquet)")


def main() -> None:
    print(f"{'run':<16}{'cpu':>10}{'clock':>10}{'downloaded':>14}{'rows loaded':>14}  built")
    with TemporaryDirectory(prefix="bench-") as folder:
        complete, served, home = (Path(folder, name) for name in ("complete", "served", "home"))
        for path in (complete, served):
            path.mkdir()
        write_files(complete, 1_000_000)
        for path in complete.iterdir():
            if path.stem not in FACTS:
                path.rename(served / path.name)
        # dbt's tests ask for the customer of each order.
        customers = f"select distinct customer as id, 'Ann' as name from '{complete}/raw_orders.parquet'"
        duckdb.execute(f"copy ({customers}) to '{served}/raw_customers.parquet' (format parquet)")
        command = [
            Path(sys.executable).with_name("serverless"),
            "run",
            *(sys.argv[1:] or ["--skip-forecast"]),
        ]
        with serving(served) as url:
            for name, days in (("everything", 0), ("a day more", 1)):
                cut(complete, served, LAST_DAY + timedelta(days=days))
                cost = measure(Contender(name, command, run_variables(url)), home)
                summary = json.loads((home / "runs" / "latest.json").read_text())
                assets = summary["assets"]
                size = sum(assets[table]["bytes"] or 0 for table in FACTS)
                month = f"where ordered_at >= date '{LAST_DAY.replace(day=1)}'" if days else ""
                with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
                    rows = sum(
                        connection.execute(f"select count(*) from dwh.{table} {month}").fetchone()[0]
                        for table in FACTS
                    )
                print(
                    f"{name:<16}{cost.cpu:>8.1f} s{cost.clock:>8.1f} s{size / 1e6:>11,.0f} MB{rows:>14,}"
                    f"  {summary['totals']['built']}: {[assets[t]['reason'] for t in FACTS]}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
