"""A small world to change: a source over HTTP, a copy of the dbt project, and a home of its own."""

import hashlib
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.sample_shop.api import serve
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from tests.conftest import NO_FORECAST, Pipeline, code_location
from tests.raw_tables import RAW_ITEMS, RAW_ORDERS, TABLES
from tests.test_pipeline import change_work

MONTHS = [datetime(2026, month, 1) for month in range(3, 9)]

# What reads what, written down by hand: the planner finds it out for itself.
READS = {
    "stg_customers": {"raw_customers"},
    "stg_locations": {"raw_stores"},
    "stg_order_items": {"raw_items"},
    "stg_orders": {"raw_orders"},
    "stg_products": {"raw_products"},
    "stg_supplies": {"raw_supplies"},
    "orders": {"stg_orders", "stg_order_items", "stg_products", "stg_supplies", "stg_locations"},
    "customers": {"stg_customers", "orders"},
    "daily_revenue": {"orders"},
    "sum_revenue_per_city": {"orders"},
    "avg_order_value": {"customers"},
    "store_products": {"orders", "stg_order_items"},
}
FOLDER = {
    **{name: "staging" for name in READS if name.startswith("stg_")},
    **dict.fromkeys(("orders", "customers"), "marts"),
    **dict.fromkeys(
        ("daily_revenue", "sum_revenue_per_city", "avg_order_value", "store_products"), "aggregations"
    ),
}


# A column that no other model reads.
UNREAD = "unread_by_all"


def above(model: str) -> set[str]:
    """Everything that a model is made from, raw tables included."""
    found = set(READS.get(model, ()))
    return found.union(*(above(parent) for parent in found))


@dataclass
class Source:
    """The raw tables, and how many bytes of them were sent."""

    rows: dict[str, list[tuple]]
    sent: int = 0
    has_validators: bool = True

    def content(self, name: str) -> bytes:
        table = next(table for table in TABLES if table.name == name)
        columns = [
            pa.array([row[n] for row in self.rows[name]], kind)
            for n, kind in enumerate(table.columns.values())
        ]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns, schema=table.source_schema), sink)
        return sink.getvalue().to_pybytes()

    def app(self) -> Starlette:
        def answer(request: Request) -> Response:
            content = self.content(request.path_params["table"])
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            headers = {"ETag": etag} if self.has_validators else {}
            if request.headers.get("If-None-Match") == etag:
                return Response(status_code=304, headers=headers)
            self.sent += len(content)
            return Response(content, headers=headers)

        return Starlette(routes=[Route("/{table}.parquet", answer)])


def small_source(chance: random.Random) -> Source:
    """A shop with some orders in each of six months."""
    orders, items = [], []
    for n in range(40):
        id, at = f"o{n:03}", chance.choice(MONTHS) + timedelta(days=chance.randrange(27), hours=n % 24)
        orders.append((id, f"c{chance.randrange(8)}", at, f"s{n % 2}", *cents(chance)))
        items += [(f"i{n:03}{m}", id, f"p{chance.randrange(3)}") for m in range(chance.randrange(3))]
    return Source(
        {
            "raw_customers": [(f"c{n}", f"Customer {n}") for n in range(8)],
            "raw_orders": orders,
            "raw_items": items,
            "raw_products": [
                ("p0", "Toast", "jaffle", 1100, ""), ("p1", "Tea", "beverage", 450, ""),
                ("p2", "Pie", "jaffle", 700, None),
            ],
            "raw_stores": [
                ("s0", "Brooklyn", datetime(2024, 1, 1), 0.08), ("s1", "Austin", datetime(2024, 1, 1), 0.0),
            ],
            "raw_supplies": [
                ("u0", "plate", 12, False, "p0"), ("u0", "plate", 12, False, "p2"),
                ("u1", "cup", 7, True, "p1"),
            ],
        }
    )  # fmt: skip


def cents(chance: random.Random) -> tuple[int, int, int]:
    subtotal = chance.randrange(100, 3000)
    return subtotal, subtotal // 20, subtotal + subtotal // 20


@dataclass
class World:
    """All that a run depends on, and what the models were last found sound with."""

    source: Source
    project: Path
    pipeline: Pipeline
    sound_with: dict[str, object] = field(default_factory=dict)
    read_then: dict[str, object] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        return {**self.pipeline.variables, "SERVERLESS_HOME": str(self.pipeline.home)}

    def inputs(self, model: str, of_reader: bool = False) -> object:
        """Everything that a model's rows follow from, or what is read of them: text and rows, no hashes."""
        made_from = {model, *above(model)}
        raw = {
            name: sorted(map(repr, self.source.rows[name])) for name in made_from if name in self.source.rows
        }
        # An item has the month of its order, and so the orders are in the items too.
        if RAW_ITEMS.name in raw:
            raw["dates"] = sorted(repr((row[0], row[2])) for row in self.source.rows[RAW_ORDERS.name])
        texts = {name: self.text(name) for name in made_from if name in READS}
        return raw, {
            name: text if name == model and not of_reader else text.replace(f"7 as {UNREAD}, ", "")
            for name, text in texts.items()
        }

    def text(self, model: str) -> str:
        """The SQL of a model and of the macros whose names stand in it, and in those."""
        macros = {path.stem: path.read_text() for path in (self.project / "macros").glob("*.sql")}
        text = (self.project / "models" / FOLDER[model] / f"{model}.sql").read_text()
        while more := [
            name for name, body in macros.items() if re.search(rf"\b{name}\b", text) and body not in text
        ]:
            text += "".join(macros[name] for name in more)
        return " ".join(re.sub(r"--[^\n]*", " ", text).split())

    def needed(self, gone: set[str]) -> set[str]:
        """By brute force: models that are gone, or whose inputs are not those of their last sound build."""
        return {name for name in READS if name in gone or self.sound_with.get(name) != self.inputs(name)}

    def run(self) -> Mapping[str, dict[str, object]]:
        # A code location is loaded again after an edit.
        self.pipeline.__dict__.pop("definitions", None)
        code_location.cache_clear()
        self.pipeline.run(NO_FORECAST)
        return {name: self.pipeline.summary["assets"][name] for name in READS}

    def name(self, model: str) -> str:
        """The name in SQL of the relation that runs write to."""
        return self.pipeline.warehouse.quoted_name(model)

    def execute(self, statement: str) -> None:
        """Change the warehouse by hand, behind the pipeline's back."""
        if isinstance(self.pipeline.warehouse, DuckDBWarehouse):
            change_work(self.pipeline, statement)
        else:
            self.pipeline.warehouse.query(statement)

    def settle(self, sound: set[str]) -> None:
        for name in sound:
            self.sound_with[name] = self.inputs(name)
            self.read_then[name] = self.inputs(name, of_reader=True)

    def kill_a_run(self, lines: int) -> None:
        """Start a run in a process of its own and kill it once it has said so many lines."""
        serverless = Path(sys.executable).with_name("serverless")
        process = subprocess.Popen(
            [serverless, "run", "--skip-forecast"], env=self.variables, stdout=subprocess.PIPE, text=True
        )
        for _ in range(lines):
            process.stdout.readline()
        process.kill()
        process.communicate()


@contextmanager
def world(
    folder: Path, chance: random.Random, environment: Mapping[str, str] | None = None
) -> Iterator[World]:
    """A world that has not seen a run; `environment` are the variables of another than the local one."""
    source = small_source(chance)
    project = folder / "dbt_project"
    shutil.copytree(PROJECT_ROOT / "dbt_project", project, ignore=shutil.ignore_patterns("target", "logs"))
    with serve(source.app()) as url, dg.DagsterInstance.ephemeral() as instance:
        variables = {
            **(environment or {}),
            "SERVERLESS_DATASET_URL": url,
            "SERVERLESS_FIRST_MONTH": "2026-01",
            "SERVERLESS_DBT_PROJECT": str(project),
        }
        yield World(source, project, Pipeline(folder / "home", instance, variables))


def from_scratch(world: World, folder: Path) -> Pipeline:
    """The same source and project, on this machine, in a home where nothing was ever built."""
    with dg.DagsterInstance.ephemeral() as instance:
        variables = {**world.pipeline.variables, "SERVERLESS_ENV": "local", "SERVERLESS_COMPUTE": ""}
        pipeline = Pipeline(folder, instance, variables)
        pipeline.run(NO_FORECAST)
    return pipeline


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def replace_rows(source: Source, table: RawTable, change: Callable[[list[tuple]], list[tuple]]) -> None:
    source.rows[table.name] = change(source.rows[table.name])
