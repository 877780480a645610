"""What building and testing the bundled dbt project costs beside its peers: `make bench-build`.

All begin with loaded raw tables, no models and nothing parsed.
"""

import os
import shutil
import subprocess
import sys
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
from loading import run_variables
from measure import Contender, compare, serving

from serverless_assets.sample_shop.catalogue import TABLES
from serverless_assets.sample_shop.shop import SampleShop

PROJECT = Path(__file__).parents[1] / "dbt_project"
PREFECT = Path(__file__).parents[1] / ".venv-prefect/bin/python"
SERVERLESS = Path(sys.executable).with_name("serverless")
SHOP = SampleShop(end=date(2026, 10, 31))
# The settings of the project, as `serverless` gives them to dbt.
DBT = {
    "SERVERLESS_DUCKDB_PATH": "{home}/work/warehouse.duckdb",
    "DBT_SCHEMA": "dwh",
    "DBT_PROFILES_DIR": "{home}/dbt",
    "DBT_PROJECT_DIR": str(PROJECT),
    "DBT_TARGET_PATH": "{home}/target",
    "DBT_LOG_PATH": "{home}/logs",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
}


# Prefect starts a server of its own for the flow, and stays silent to its makers.
WITH_PREFECT = {
    **DBT,
    "PREFECT_HOME": "{home}/prefect",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}


def dagster_dbt(home: str) -> None:
    """Build with dagster-dbt's resource, with an asset for each model."""
    import dagster as dg
    from dagster_dbt import DbtCliResource, dbt_assets

    target = Path(home, "target")
    executable = str(SERVERLESS.with_name("dbt"))
    dbt = DbtCliResource(str(PROJECT), profiles_dir=f"{home}/dbt", dbt_executable=executable)
    dbt.cli(["parse"], target_path=target).wait()

    @dbt_assets(manifest=target / "manifest.json")
    def models(context: dg.AssetExecutionContext, dbt: DbtCliResource):  # type: ignore[no-untyped-def]
        build = ["build", "--exclude-resource-type", "unit_test"]
        yield from dbt.cli(build, context=context, target_path=target).stream()

    assert dg.materialize([models], resources={"dbt": dbt}).success


def write_shop(folder: Path) -> None:
    """Write the tables of the sample shop, 130,000 orders, as files."""
    for name in TABLES:
        pq.write_table(SHOP.table(name), folder / f"{name}.parquet")


def copy_loaded(loaded: Path, home: Path) -> None:
    """Copy a home whose raw tables are loaded, without what dbt parsed."""
    shutil.copytree(loaded, home, dirs_exist_ok=True, symlinks=True)
    for parsed in ("manifest.json", "manifest.state", "partial_parse.msgpack"):
        (home / "dbt" / parsed).unlink(missing_ok=True)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with TemporaryDirectory(prefix="bench-") as folder:
        served, loaded = Path(folder, "served"), Path(folder, "loaded")
        served.mkdir()
        write_shop(served)
        with serving(served) as url:
            ours = run_variables(url)
            variables = {name: value.format(home=loaded) for name, value in ours.items()}
            ingest = [SERVERLESS, "run", "ingest"]
            subprocess.run(ingest, env={**os.environ, **variables}, check=True, stdout=subprocess.DEVNULL)
            ready = partial(copy_loaded, loaded)
            build = [SERVERLESS.with_name("dbt"), "build", "--exclude-resource-type", "unit_test"]
            by_resource = [sys.executable, __file__, "dagster_dbt", "{home}"]
            by_prefect = [PREFECT, Path(__file__).with_name("prefect_build.py")]
            contenders = [
                Contender("dbt build", build, DBT, ready),
                Contender("dagster-dbt", by_resource, DBT, ready),
                Contender("prefect-dbt", by_prefect, WITH_PREFECT, ready),
                Contender("serverless run transform", [SERVERLESS, "run", "transform"], ours, ready),
            ]
            compare("Building, the bundled models and their tests", contenders, rounds, "dbt build")


if __name__ == "__main__":
    if sys.argv[1:2] == ["dagster_dbt"]:
        dagster_dbt(sys.argv[2])
    else:
        main()
