"""What a first run of everything costs beside a plain script: `make bench-whole-run`.

The script loads the tables with curl and DuckDB, builds with dbt, has Prophet forecast 180 days of the total,
and writes a table, a parquet file and a chart. It checks nothing, forecasts no stores, and keeps no state.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
from building import DBT, SERVERLESS, write_shop
from loading import TABLES, least, run_variables
from measure import Contender, compare, serving

PROFILE = """
serverless_assets:
  target: local
  outputs:
    local:
      {type: duckdb, path: "{{ env_var('SERVERLESS_DUCKDB_PATH') }}", schema: dwh, threads: 2}
"""
DATED_ITEMS = (
    "select items.*, ordered_at from dwh.raw_items as items join dwh.raw_orders as orders"
    " on orders.id = items.order_id"
)
HISTORY = "select ds, cast(sum(revenue_usd) as double) as y from dwh.daily_revenue group by ds order by ds"


def script(url: str, home: str) -> None:
    """Load, build, forecast and draw, without anything else."""
    from prophet import Prophet

    least(url, home)
    warehouse = f"{home}/warehouse.duckdb"
    with duckdb.connect(warehouse) as connection:
        connection.execute("create schema dwh")
        for name in TABLES:
            connection.execute(f"create table dwh.{name} as from main.{name}; drop table main.{name}")
        # The models read the time of an item, which the loading step adds.
        connection.execute("create or replace table dwh.raw_items as " + DATED_ITEMS)
    Path(home, "dbt").mkdir()
    Path(home, "dbt", "profiles.yml").write_text(PROFILE)
    dbt = Path(sys.executable).with_name("dbt")
    subprocess.run([dbt, "build", "--exclude-resource-type", "unit_test"], check=True)
    with duckdb.connect(warehouse) as connection:
        history = connection.sql(HISTORY).df()
        model = Prophet(interval_width=0.8)
        model.add_country_holidays("US")
        model.fit(history)
        predicted = model.predict(model.make_future_dataframe(180))
        forecast = predicted[["ds", "yhat", "yhat_lower", "yhat_upper"]]
        connection.register("forecast", forecast)
        connection.execute("create table dwh.order_forecast as from forecast")
    forecast.to_parquet(f"{home}/forecast.parquet")
    model.plot(predicted).savefig(f"{home}/forecast.svg")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with TemporaryDirectory(prefix="bench-") as folder:
        served = Path(folder)
        write_shop(served)
        with serving(served) as url:
            plain = {**DBT, "SERVERLESS_DUCKDB_PATH": "{home}/warehouse.duckdb"}
            contenders = [
                Contender("a plain script", [sys.executable, __file__, "script", url, "{home}"], plain),
                Contender("serverless run", [SERVERLESS, "run"], run_variables(url)),
            ]
            compare("A first run of everything", contenders, rounds, "a plain script")


if __name__ == "__main__":
    if sys.argv[1:2] == ["script"]:
        script(*sys.argv[2:])
    else:
        main()
