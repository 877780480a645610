"""Another team's dbt project of a few models, run by the transformation step on a warehouse of its own."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from serverless_assets.artifacts import Artifacts
from serverless_assets.publishing.around_run import around_run
from serverless_assets.publishing.local import LocalPublisher
from serverless_assets.publishing.outcome import PendingAssets
from serverless_assets.publishing.summary import read_summary
from serverless_assets.run_inputs import Reuse, RunInputs, SkipForecast
from serverless_assets.transformation.assets import transformation_assets
from serverless_assets.transformation.project import Project
from serverless_assets.warehouse import TableShape
from serverless_assets.warehouse.duckdb import DuckDBWarehouse

ORDERS = TableShape(
    "raw_orders",
    pa.schema({"id": pa.int64(), "ordered_at": pa.timestamp("us"), "total": pa.int64()}),
    partitioned_by="ordered_at",
)

FIRST_MONTH = date(2024, 1, 1)

BASE = {
    "dbt_project.yml": "name: team\nversion: '1.0.0'\nprofile: team\n",
    "profiles.yml": """
team:
  target: "{{ env_var('DBT_TARGET', 'local') }}"
  outputs:
    local: &local
      type: duckdb
      path: "{{ env_var('SERVERLESS_DUCKDB_PATH') }}"
      schema: "{{ env_var('DBT_SCHEMA') }}"
      threads: 1
      config_options: {custom_user_agent: dagster}
    dev:
      <<: *local
      path: dev.duckdb
""",
    "models/raw.yml": """
sources:
  - name: raw
    schema: "{{ target.schema }}"
    tables:
      - name: raw_orders
        config: {meta: {dagster: {asset_key: [raw_orders]}}}
""",
}


@dataclass
class Team:
    """The project's folder, and the home of its warehouse."""

    directory: Path
    home: Path
    instance: dg.DagsterInstance
    schema: str = "dwh"

    def write(self, files: Mapping[str, str]) -> "Team":
        for name, text in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self

    @property
    def publisher(self) -> LocalPublisher:
        return LocalPublisher(self.home, self.schema)

    @property
    def warehouse(self) -> DuckDBWarehouse:
        return self.publisher.warehouse

    @property
    def artifacts(self) -> Artifacts:
        return self.publisher.artifacts

    @property
    def project(self) -> Project:
        variables = {"SERVERLESS_ENV": "local", **self.warehouse.dbt_variables()}
        return Project(self.directory, self.home / "dbt", variables)

    def load(self, rows: Sequence[tuple[int, datetime, int]], folder: Path) -> None:
        """Replace raw_orders, and note the version of each month, as ingestion does."""
        names = ORDERS.schema.names
        records = [dict(zip(names, row, strict=True)) for row in rows]
        table = pa.Table.from_pylist(records, schema=ORDERS.schema)
        path = folder / "orders.parquet"
        pq.write_table(table, path)
        months: dict[str, list[object]] = {}
        for row in sorted(rows):
            months.setdefault(f"{row[1]:%Y-%m}-01", []).append(row)
        versions = {
            month: hashlib.sha256(repr(found).encode()).hexdigest() for month, found in months.items()
        }
        version = hashlib.sha256(repr(sorted(versions.items())).encode()).hexdigest()
        # As after a run that finished: a working copy without this record is not trusted.
        PendingAssets(self.home).replace(PendingAssets(self.home).read())
        self.warehouse.replace_rows(ORDERS, path, {"version": version, "months": versions})

    def run(
        self,
        *assets: str,
        rebuild: str = "changed",
        deleted: str = "keep",
        tags: Mapping[str, str] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Run the step for these assets, or all; what became of each by its summary."""
        definition = transformation_assets(self.project, FIRST_MONTH, "pool")
        defs = dg.Definitions(
            assets=[definition],
            jobs=[dg.define_asset_job("all", dg.AssetSelection.all())],
            resources={
                "publisher": around_run(
                    self.publisher,
                    lambda planned, choices, log: None,
                    [key.to_user_string() for key in definition.keys],
                    runs_kept=100,
                ),
                "run_inputs": RunInputs(
                    rebuild=rebuild,  # type: ignore[arg-type]
                    deleted_models=deleted,  # type: ignore[arg-type]
                    ingestion=Reuse(),
                    forecast=SkipForecast(),
                ),
            },
            executor=dg.in_process_executor,
        )
        defs.resolve_job_def("all").execute_in_process(
            instance=self.instance,
            tags=dict(tags or {}),
            asset_selection=[dg.AssetKey.from_user_string(asset) for asset in assets] or None,
            raise_on_error=False,
        )
        return dict((read_summary(self.home) or {})["assets"])

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(duckdb.connect(str(self.warehouse.path))) as connection:
            return connection.execute(query).fetchall()

    def execute(self, statement: str) -> None:
        """Change the working copy by hand."""
        with closing(duckdb.connect(str(self.warehouse.path))) as connection:
            connection.execute(statement)
