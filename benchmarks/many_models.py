"""What a run of a large dbt project costs when nothing or one model changed: `make bench-many-models`.

A generated project of ten layers over one raw table, run in a home of its own by processes of their own, as a
person starts them.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import Contender, Cost, measure

LAYERS = 10
PROJECT = {
    "dbt_project.yml": "name: generated\nversion: '1.0.0'\nprofile: generated\n",
    "profiles.yml": """
generated:
  target: local
  outputs:
    local:
      type: duckdb
      path: "{{ env_var('SERVERLESS_DUCKDB_PATH') }}"
      schema: "{{ env_var('DBT_SCHEMA') }}"
      threads: 2
      config_options: {custom_user_agent: dagster}
""",
    "models/raw.yml": """
sources:
  - name: raw
    schema: "{{ target.schema }}"
    tables:
      - name: raw_stores
        config: {meta: {key: [id]}}
        columns:
          - {name: id, data_type: string}
          - {name: name, data_type: string}
          - {name: opened_at, data_type: timestamp}
          - {name: tax_rate, data_type: double}
""",
}


def model_files(models: int) -> Iterator[tuple[str, str]]:
    """Yield the path and text of each file of so many models: views and tables in turn, a test for each."""
    width = max(models // LAYERS, 1)
    for number in range(models):
        layer, place = divmod(number, width)
        name, materialized = f"m{number:04}", "table" if layer % 2 else "view"
        below = [(layer - 1) * width + (place + step) % width for step in range(min(2, width))]
        first, *others = (
            ["{{ source('raw', 'raw_stores') }}"]
            if layer == 0
            else [f"{{{{ ref('m{parent:04}') }}}}" for parent in below]
        )
        joins = "".join(f"\njoin {other} as b using (id)" for other in others)
        yield (
            f"models/layer_{layer}/{name}.sql",
            f"{{{{ config(materialized='{materialized}') }}}}\n"
            f"select a.id, upper(a.name) as name, a.tax_rate + {number} as tax_rate\n"
            f"from {first} as a{joins}\n",
        )
        columns = "".join(
            f"\n      - {{name: {column}, description: The {column} of a store.{tests}}}"
            for column, tests in (("id", ", data_tests: [not_null]"), ("name", ""), ("tax_rate", ""))
        )
        yield (
            f"models/layer_{layer}/{name}.yml",
            f"models:\n  - name: {name}\n    description: Stores, step {number}.\n    columns:{columns}\n",
        )


def write_project(folder: Path, models: int) -> None:
    """Write a dbt project of so many models to a folder."""
    for name, text in (*PROJECT.items(), *model_files(models)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def measured(project: Path, home: Path) -> tuple[Cost, dict[str, int]]:
    """Run the project; return what it cost, and the totals by status."""
    variables = {
        "SERVERLESS_HOME": str(home),
        "SERVERLESS_SAMPLE_END": "2026-10-30",
        "SERVERLESS_DBT_PROJECT": str(project),
    }
    serverless = Path(sys.executable).with_name("serverless")
    cost = measure(Contender("serverless run", [serverless, "run"], variables), home)
    return cost, json.loads((home / "runs" / "latest.json").read_text())["totals"]


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or [10, 300, 1000]
    print(f"{'models':>7}  {'run':<18}{'cpu':>9}{'clock':>9}  totals")
    for models in sizes:
        with TemporaryDirectory(prefix="bench-") as folder:
            project, home = Path(folder, "project"), Path(folder, "home")
            write_project(project, models)
            for run in ("first", "nothing changed", "one model changed"):
                if run == "one model changed":
                    last = sorted(project.rglob("m*.sql"))[-1]
                    last.write_text(last.read_text().replace("upper", "lower"))
                cost, totals = measured(project, home)
                counts = ", ".join(f"{totals[status]} {status}" for status in ("built", "reused"))
                print(f"{models:>7}  {run:<18}{cost.cpu:>8.1f}s{cost.clock:>8.1f}s  {counts}", flush=True)


if __name__ == "__main__":
    main()
