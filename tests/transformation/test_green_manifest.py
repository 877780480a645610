import json

import pytest

from serverless_assets.artifacts.local import LocalArtifacts
from serverless_assets.transformation.green_build import (
    HISTORY_KEPT,
    HISTORY_PREFIX,
    MANIFEST,
    RUN_RESULTS,
    keep_manifest,
    known_models,
    last_green,
    substance,
)


def manifest(sql="select 1", at="2026-01-01T00:00:00Z", **metadata):
    node = {"resource_type": "model", "alias": "orders", "raw_code": sql, "created_at": at, "compiled": at}
    test = {"resource_type": "test", "alias": "not_null", "raw_code": "", "created_at": at}
    return {
        "metadata": {"generated_at": at, "invocation_id": at, "dbt_version": "1", **metadata},
        "nodes": {"model.p.orders": node, "test.p.not_null": test},
        "macros": {"macro.p.m": {"macro_sql": "m", "created_at": at}},
        "parent_map": {"model.p.orders": []},
    }


@pytest.fixture
def artifacts(tmp_path):
    return LocalArtifacts(tmp_path / "work", tmp_path / "published")


@pytest.fixture
def kept(artifacts, tmp_path):
    """Keep a manifest; whether anything was written."""

    def kept(content, run_id="0123456789", results='{"results": []}'):
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps(content))
        run_results = tmp_path / "run_results.json"
        run_results.write_text(results)
        return keep_manifest(artifacts, path, run_results, run_id)

    return kept


def test_before_the_first_green_build_nothing_is_known(artifacts):
    assert last_green(artifacts) is None
    assert not known_models(artifacts)


def test_a_green_build_leaves_its_manifest_and_its_results_and_a_copy_by_time_and_run(artifacts, kept):
    assert kept(manifest())
    assert last_green(artifacts) == manifest()
    assert known_models(artifacts).keys() == {"model.p.orders"}
    assert json.loads(artifacts.read(RUN_RESULTS)) == {"results": []}
    (copy,) = artifacts.names(HISTORY_PREFIX)
    assert copy.endswith("Z-01234567.json")
    assert artifacts.read(copy) == artifacts.read(MANIFEST)


def test_a_second_build_of_the_same_project_writes_nothing(artifacts, kept, tmp_path):
    kept(manifest())
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    assert not kept(manifest(at="2026-02-02T00:00:00Z"), results="{}")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()} == files


@pytest.mark.parametrize(
    "changed",
    [
        manifest("select 2"),
        manifest(dbt_version="2"),
        {**manifest(), "macros": {"macro.p.m": {"macro_sql": "n"}}},
        {**manifest(), "parent_map": {"model.p.orders": ["model.p.more"]}},
        {**manifest(), "exposures": {"exposure.p.e": {}}},
    ],
)
def test_whatever_matters_in_a_manifest_makes_it_another(kept, changed):
    kept(manifest())
    assert substance(changed) != substance(manifest())
    assert kept(changed)


def test_without_an_account_of_the_build_the_manifest_is_kept_all_the_same(artifacts, tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest()))
    assert keep_manifest(artifacts, path, tmp_path / "nowhere.json", "r")
    assert last_green(artifacts) == manifest()
    assert artifacts.read(RUN_RESULTS) is None


def test_the_last_few_copies_are_kept(artifacts, kept):
    for n in range(HISTORY_KEPT + 3):
        kept(manifest(f"select {n}"), run_id=f"run{n:05}")
    names = artifacts.names(HISTORY_PREFIX)
    assert [name[-13:-5] for name in names] == [f"run{n:05}" for n in range(3, HISTORY_KEPT + 3)]
    assert last_green(artifacts) == manifest(f"select {HISTORY_KEPT + 2}")


def test_a_killed_keeping_is_done_again(artifacts, kept, monkeypatch):
    def killed(self, name, content, write=LocalArtifacts.write):
        if name == MANIFEST:
            raise KeyboardInterrupt
        return write(self, name, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LocalArtifacts, "write", killed)
        kept(manifest())
    assert last_green(artifacts) is None
    assert kept(manifest())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_what_is_not_a_manifest_counts_as_none_and_is_replaced(artifacts, kept, content):
    artifacts.write(MANIFEST, content)
    assert last_green(artifacts) is None
    assert kept(manifest())
    assert last_green(artifacts) == manifest()
