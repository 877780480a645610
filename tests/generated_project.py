"""A dbt project of ten layers over one raw table, generated in any size."""

from collections.abc import Iterator
from pathlib import Path

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


def model_files(models: int, light: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the path and text of each file of so many models.

    The models of a layer read two of the layer below: the one at the same place, and the next.

    Every second layer is of tables, and each model has descriptions and a data test. If `light`, all models
    are views without those: that takes a third of the time.
    """
    width = max(models // LAYERS, 1)
    for number in range(models):
        layer, place = divmod(number, width)
        name, materialized = f"m{number:04}", "table" if layer % 2 and not light else "view"
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
        if light:
            continue
        columns = "".join(
            f"\n      - {{name: {column}, description: The {column} of a store.{tests}}}"
            for column, tests in (("id", ", data_tests: [not_null]"), ("name", ""), ("tax_rate", ""))
        )
        yield (
            f"models/layer_{layer}/{name}.yml",
            f"models:\n  - name: {name}\n    description: Stores, step {number}.\n    columns:{columns}\n",
        )


def write_project(folder: Path, models: int, light: bool = False) -> None:
    """Write a dbt project of so many models to a folder, as `model_files` has them."""
    for name, text in (*PROJECT.items(), *model_files(models, light)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
