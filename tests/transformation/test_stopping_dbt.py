"""dbt ends within seconds when whoever started it has had enough, whatever it is doing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import duckdb
import psutil
import pytest

from serverless_assets.transformation import dbt_internals, dbt_runner
from serverless_assets.transformation.relation_states import rows_in
from serverless_assets.warehouse.duckdb import DuckDBWarehouse

pytestmark = pytest.mark.slow

# After that long, a model that did not begin has failed: the test fails, and does not wait for ever.
BEGIN_SECONDS = 120

PROJECT = "name: small\nversion: '1.0'\nprofile: small\nmodel-paths: [models]\n"
PROFILE = """
small:
  target: local
  outputs:
    local:
      type: duckdb
      path: "{{ env_var('SERVERLESS_DUCKDB_PATH') }}"
      schema: dwh
      threads: 2
      config_options: {custom_user_agent: dagster}
"""
DONE = "select 1 as n"
# What reads it waits in dbt's queue meanwhile.
LONG_QUERY = """{{ config(materialized='table', pre_hook="copy (select 1 as n) to '%s'") }}
select count(*) as n from range(3000000) as a(m), range(3000000) as b(n) where sin(m) * n = 2"""
PYTHON_THAT_CATCHES_ALL = """
import time
def model(dbt, session):
    open(%r, "w").close()
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            pass
    return session.sql("select 1 as n")
"""
ENDLESS_PARSE = """{% for n in range(10 ** 9) %}{% for m in range(10 ** 9) %}{% endfor %}{% endfor %}
select 1 as n"""


class Small:
    """A small dbt project and its DuckDB file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.begun = folder, folder / "begun"
        (folder / "models").mkdir()
        self.write(**{"../dbt_project.yml": PROJECT, "../profiles.yml": PROFILE})
        self.warehouse = DuckDBWarehouse(folder / "warehouse.duckdb", "dwh")

    def write(self, **models: str) -> None:
        for name, text in models.items():
            (self.folder / "models" / name).write_text(text)

    @property
    def arguments(self) -> tuple[list[str], Path, Path, Mapping[str, str]]:
        return (
            ["build"],
            self.folder,
            self.folder / "target",
            {"SERVERLESS_ENV": "local", **self.warehouse.dbt_variables()},
        )


@pytest.fixture
def small(tmp_path):
    return Small(tmp_path)


def dbt_processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "dbt_process" in " ".join(child.cmdline())]


@pytest.mark.parametrize(
    ("name", "model"),
    [("long.sql", LONG_QUERY), ("long.py", PYTHON_THAT_CATCHES_ALL)],
    ids=["in a long query", "in a Python model that ignores interrupts"],
)
def test_closing_the_events_ends_dbt_and_leaves_the_file_to_others(small, name, model):
    small.write(
        **{"a.sql": DONE, name: model % str(small.begun), "reader.sql": "select * from {{ ref('long') }}"}
    )
    dbt_runner.end_idle_processes()
    events = dbt_runner.stream(*small.arguments)
    waits_for = {("LogModelResult", "a"), ("LogStartLine", "long")}
    for event in events:
        # dbt's threads go on: one finishes `a`, and one runs `long`.
        waits_for.discard((event["info"]["name"], event["data"].get("node_info", {}).get("node_name")))
        if not waits_for:
            break
    [process] = dbt_processes()
    deadline = time.monotonic() + BEGIN_SECONDS
    while not small.begun.exists():
        assert process.is_running() and time.monotonic() < deadline, "dbt did not begin the model"
    events.close()
    assert not process.is_running()
    assert "a" in small.warehouse.tables()


def test_a_command_that_is_interrupted_while_it_parses_ends_dbt(small):
    small.write(**{"endless.sql": ENDLESS_PARSE})
    dbt_runner.end_idle_processes()

    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dbt_runner.invoke(*small.arguments, on_event=interrupt)
    assert dbt_processes() == []


def test_dbt_ends_with_the_process_that_started_it(small):
    small.write(**{"long.sql": LONG_QUERY % small.begun})
    arguments, folder, target, variables = small.arguments
    program = (
        "from pathlib import Path; from serverless_assets.transformation import dbt_runner;"
        f"dbt_runner.invoke({arguments}, Path({str(folder)!r}), Path({str(target)!r}), {variables})"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        while not small.begun.exists():
            assert parent.poll() is None
        [process] = psutil.Process(parent.pid).children()
        parent.kill()
    psutil.wait_procs([process])
    assert small.warehouse.tables() == set()


def test_a_dbt_process_that_is_killed_is_a_failure_in_words(small):
    small.write(**{"long.sql": LONG_QUERY % small.begun})
    dbt_runner.end_idle_processes()
    with pytest.raises(dbt_runner.DbtError, match="its process ended before it was done: it was killed"):
        for event in dbt_runner.stream(*small.arguments):
            if event["info"]["name"] == "LogStartLine":
                os.kill(dbt_processes()[0].pid, signal.SIGKILL)


def test_one_process_runs_one_command_after_another_and_lets_go_of_the_file(small):
    small.write(**{"a.sql": DONE})
    dbt_runner.end_idle_processes()
    for _ in range(2):
        assert dbt_runner.invoke(*small.arguments) is None
        duckdb.connect(str(small.warehouse.path)).close()
    assert len(dbt_processes()) == 1
    dbt_runner.end_idle_processes()
    assert dbt_processes() == []


def test_events_tell_the_rows_of_tables_that_were_built_and_run_no_view_to_count_them(small):
    table = "{{ config(materialized='table') }} select * from range(3)"
    small.write(**{"a.sql": table, "b.sql": "select * from range(3)"})
    events = [*dbt_runner.stream(*small.arguments, count_rows=partial(rows_in, small.warehouse))]
    built = [event["data"] for event in events if event["info"]["name"] == "LogModelResult"]
    assert {data["node_info"]["node_name"]: data.get("rows") for data in built} == {"a": 3, "b": None}


def test_a_command_leaves_the_file_closed_whatever_still_refers_to_dbts_connection(tmp_path):
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.adapters.duckdb.credentials import DuckDBCredentials
    from dbt.adapters.duckdb.environments import create

    path = tmp_path / "warehouse.duckdb"
    environment = create(DuckDBCredentials(database="warehouse", schema="dwh", path=str(path)))
    DuckDBConnectionManager._ENV = environment
    handle = environment.handle()
    handle.cursor().execute("create table one as select 1 as n")
    dbt_internals.close_duckdb()
    assert str(path) not in {file.path for file in psutil.Process().open_files()}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
