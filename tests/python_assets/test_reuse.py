"""A Python asset is computed if its code or what it reads changed, and reused else."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

import serverless_assets.defs
from serverless_assets.dagster_internals import DATA_VERSION_TAG
from serverless_assets.metadata import plain_values
from serverless_assets.publishing.local import LocalPublisher
from serverless_assets.python_assets.pandas_tables import pandas_tables
from serverless_assets.python_assets.reuse import (
    decide_frame,
    frame_asset,
    frame_assets,
    hash_modules,
    is_frame,
    reuse_unchanged,
)
from serverless_assets.run_inputs import RunInputs
from serverless_assets.settings import SettingsError
from serverless_assets.warehouse import TableShape

RELATIONS = {"sales": ("", "", "daily_sales")}


@pytest.fixture
def publisher(tmp_path: Path) -> LocalPublisher:
    publisher = LocalPublisher(tmp_path, "dwh")
    publisher.warehouse.path.parent.mkdir(parents=True)
    set_sales(publisher, 1.5, "first")
    return publisher


def set_sales(publisher: LocalPublisher, sold: float, version: str) -> None:
    rows = pa.table({"store": ["a"], "sold": [sold]})
    publisher.warehouse.replace_rows(
        TableShape("daily_sales", rows.schema), rows, {"version": version} if version else {}
    )


class Team:
    """The asset `plan`, and how often its code was executed."""

    def __init__(self, publisher: LocalPublisher) -> None:
        self.publisher, self.computed = publisher, 0
        self.result: dg.ExecuteInProcessResult

    def asset(self, factor: float = 2.0, code_version: str | None = "1") -> dg.AssetsDefinition:
        @dg.asset(io_manager_key="pandas", code_version=code_version)
        def plan(context: dg.AssetExecutionContext, sales: pd.DataFrame) -> pd.DataFrame:
            self.computed += 1
            context.add_output_metadata({"factor": factor})
            return sales.assign(needed=sales["sold"] * factor)

        return plan

    def run(self, definition: dg.AssetsDefinition, rebuild: str = "changed") -> tuple[str, str]:
        frame = frame_asset(definition, RELATIONS)
        self.result = dg.materialize(
            [reuse_unchanged(definition, frame, "local/dwh"), dg.AssetSpec("sales")],
            resources={
                "pandas": pandas_tables,
                "publisher": self.publisher,
                "run_inputs": RunInputs(rebuild=rebuild),
            },
        )
        [event] = self.result.asset_materializations_for_node("plan")
        self.version = event.tags[DATA_VERSION_TAG]
        facts = plain_values(event.metadata)
        return facts["status"], facts["reason"]

    @property
    def needed(self) -> list[float]:
        return self.publisher.warehouse.query("select needed from dwh.plan")["needed"].to_pylist()


@pytest.fixture
def team(publisher: LocalPublisher) -> Team:
    return Team(publisher)


def test_an_asset_is_computed_once_and_reused_with_the_same_data_version(team):
    assert team.run(team.asset()) == ("built", "new")
    first = team.version
    assert team.run(team.asset()) == ("reused", "unchanged: same code and inputs")
    assert (team.computed, team.needed, team.version) == (1, [3.0], first)


def test_a_new_input_is_computed_and_the_same_rows_are_left(team):
    team.run(team.asset())
    set_sales(team.publisher, 2.0, "second")
    assert team.run(team.asset()) == ("built", "upstream rebuilt (sales)")
    assert (team.computed, team.needed) == (2, [4.0])
    set_sales(team.publisher, 2.0, "third")
    assert team.run(team.asset()) == ("reused", "unchanged: same rows")
    # What they were computed from is kept, so that the next run has nothing to do.
    assert team.run(team.asset())[1] == "unchanged: same code and inputs"
    assert team.computed == 3


def test_another_code_version_is_computed(team):
    team.run(team.asset())
    assert team.run(team.asset(3.0, code_version="2")) == ("built", "code changed")
    assert team.needed == [4.5]


def test_rows_that_were_replaced_and_a_rebuild_that_was_asked_for_are_computed(team):
    team.run(team.asset())
    warehouse = team.publisher.warehouse
    rows = pa.table({"needed": [0.0]})
    warehouse.replace_rows(TableShape("plan", rows.schema), rows, {})
    assert team.run(team.asset())[1] == "relation replaced: it is not known what it was built from"
    rows = pa.table({"needed": [0.0]})
    warehouse.replace_rows(TableShape("plan", rows.schema), rows, warehouse.read_state("plan"))
    assert team.run(team.asset(), rebuild="all") == ("built", "forced: rebuild all")
    assert team.needed == [3.0]


def test_an_input_of_which_nothing_is_known_is_read_in_every_run(team):
    set_sales(team.publisher, 1.5, "")
    team.run(team.asset())
    assert team.run(team.asset()) == ("reused", "unchanged: same rows")
    assert team.computed == 2


@pytest.mark.parametrize("reused", [False, True])
def test_an_input_whose_tests_failed_is_not_read(team, reused):
    if reused:
        team.run(team.asset())
    rows = pa.table({"store": ["a"], "sold": [9.0]})
    note = {"dirty_reason": "last tests failed: unique_sales"}
    team.publisher.warehouse.replace_rows(TableShape("daily_sales", rows.schema), rows, note)
    with pytest.raises(
        dg.Failure, match=r"daily_sales cannot be relied on: last tests failed: unique_sales\. First run `"
    ):
        team.run(team.asset())
    assert team.computed == int(reused)


def test_the_reason_is_known_before_the_run(team):
    frame = frame_asset(team.asset(), RELATIONS)
    assert decide_frame(frame, team.publisher.warehouse, False)[1] == "new"
    team.run(team.asset())
    assert decide_frame(frame, team.publisher.warehouse, False)[1] is None


def test_metadata_checks_and_events_of_the_function_are_kept(team):
    definition = team.asset()
    team.run(definition)
    [event] = team.result.asset_materializations_for_node("plan")
    assert plain_values(event.metadata)["factor"] == 2.0

    @dg.asset(io_manager_key="pandas")
    def plan(sales: pd.DataFrame) -> Iterator[Any]:
        yield dg.AssetObservation("sales")
        yield dg.Output(sales, metadata={"of": "an output"})

    assert team.run(plan)[0] == "built"
    [event] = team.result.asset_materializations_for_node("plan")
    assert plain_values(event.metadata)["of"] == "an output"
    assert len(team.result.asset_observations_for_node("plan")) == 1


def always(**options: Any) -> str:
    @dg.asset(io_manager_key="pandas", **options)
    def plan() -> pd.DataFrame:
        return pd.DataFrame()

    return frame_asset(plan, {}).always


def test_what_may_depend_on_more_than_code_and_inputs_is_computed_in_every_run():
    assert always() == "computed in every run: it reads no other asset, and has no code_version"
    assert always(code_version="1") == ""
    assert always(deps=["sales"]) == ""
    assert "its metadata has reuse: False" in always(deps=["sales"], metadata={"reuse": False})
    assert "it uses api, and has no code_version" in always(deps=["sales"], required_resource_keys={"api"})
    assert always(deps=["sales"], required_resource_keys={"api"}, code_version="1") == ""


def test_the_code_of_an_asset_is_its_file_and_those_of_the_defs_folder_that_it_imports(tmp_path, monkeypatch):
    package = tmp_path / "team_defs"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "rates.py").write_text("RATE = 2\n")
    (package / "plan.py").write_text("import json\nfrom .rates import RATE\n")
    monkeypatch.setattr(serverless_assets.defs, "__path__", [str(package)])
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("team_defs.plan")
    hashes = [hash_modules("team_defs.plan")]
    for file, text in (
        ("rates.py", "RATE = 3\n"),
        ("plan.py", "from .rates import RATE\n\n"),
        ("other.py", ""),
        ("rates.py", '"""Rates."""\n\nRATE = 3  # As before.\n'),
    ):
        (package / file).write_text(text)
        hashes.append(hash_modules("team_defs.plan"))
    assert len(set(hashes)) == 3 and hashes[-1] == hashes[-2] == hashes[-3]
    for name in [name for name in sys.modules if name.startswith("team_defs")]:
        del sys.modules[name]


def test_assets_of_other_io_managers_and_of_several_outputs_are_left_as_they_are():
    assert not is_frame(dg.asset(name="plan")(lambda: 1))

    @dg.multi_asset(
        outs={"a": dg.AssetOut(io_manager_key="pandas"), "b": dg.AssetOut(io_manager_key="pandas")}
    )
    def both(): ...

    assert not is_frame(both)


EMPTY = {"nodes": {}, "sources": {}}


def reading(name: str, *inputs: str, **options: Any) -> dg.AssetsDefinition:
    return dg.asset(name=name, deps=inputs, io_manager_key="pandas", **options)(lambda: None)


def test_assets_come_after_those_that_they_read():
    frames = [reading("last", "first"), reading("first", "sales"), dg.AssetSpec("sales")]
    assert [frame.name for frame in frame_assets(frames, EMPTY, [])] == ["first", "last"]


def test_an_optional_asset_is_left_out_with_what_it_reads_and_another_is_refused():
    optional = {"metadata": {"optional": True}}
    frames = [reading("plan", "order_forecast", **optional), reading("below", "plan", **optional)]
    assert frame_assets(frames, EMPTY, []) == []
    with pytest.raises(SettingsError, match=r"reads 'salse', which no asset .* did you mean sales\?"):
        frame_assets([reading("plan", "salse"), dg.AssetSpec("sales")], EMPTY, [])
