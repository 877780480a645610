"""The manifest of a dbt project is out of date when anything that dbt reads for it is another."""

import json
import logging
import os
from pathlib import Path

import pytest

from serverless_assets.transformation import dbt_runner
from serverless_assets.transformation.project import Project, project_state
from tests.conftest import Pipeline

FILES = {
    "dbt_project.yml": "name: team\nmodel-paths: [models, ../shared]\nvars: {k: 1, team: {k: 2, own: 3}}\n",
    "models/a.sql": 'select \'{{ env_var("TEAM_REGION", "eu") }}\'',
    "models/logs/target/b.py": "k = 1",
    "models/c.yaml": "models: []",
    "models/notes.md": "{% docs a %}A{% enddocs %}",
    "seeds/d.csv": "id\n1\n",
    "tests/e.sql": "select 1",
    "selectors.yml": "selectors: []",
    ".dbtignore": "x",
    "dbt_packages/p/dbt_project.yml": "name: p\nvars: {k: 9, theirs: 4}\n",
    "dbt_packages/p/macros/m.sql": "{% macro m() %}1{% endmacro %}",
    "../shared/f.sql": "select 1",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "project"


@pytest.mark.parametrize("name", FILES)
def test_an_edit_of_any_file_counts_even_if_size_and_time_stay(name, project):
    before, path = project_state(project, {}), project / name
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text(path.read_text()[:-1] + "~")
    os.utime(path, ns=times)
    assert project_state(project, {}) != before


def test_a_new_file_and_one_that_is_gone_count(project):
    before = project_state(project, {})
    (project / "models/tiny.yaml").write_text("models: []")
    added = project_state(project, {})
    (project / "models/tiny.yaml").unlink()
    assert added != before
    assert project_state(project, {}) == before


def test_a_variable_that_a_file_reads_counts_and_no_other(project, monkeypatch):
    before = project_state(project, {})
    monkeypatch.setenv("TEAM_COLOUR", "red")
    assert project_state(project, {}) == before
    monkeypatch.setenv("TEAM_REGION", "us")
    assert project_state(project, {}) != before
    assert project_state(project, {"DBT_SCHEMA": "other"}) != project_state(project, {})


def test_what_dbt_and_the_like_write_does_not_count_nor_does_a_file_saved_as_it_was(project):
    before = project_state(project, {})
    (project / "target").mkdir()
    (project / "target/manifest.json").write_text("{}")
    (project / "models/a.sql").write_text(FILES["models/a.sql"])
    (project / "models/round").symlink_to(project / "models")
    assert project_state(project, {}) == before


def test_vars_of_packages_count_too(project):
    assert Project(project, project, {}).vars() == {
        "k": [1, ["team", 2], 9],
        "team": {"k": 2, "own": 3},
        "own": ["team", 3],
        "theirs": 4,
    }


def test_a_parse_is_told_before_it_begins_and_what_is_parsed_is_not_parsed_again(team, caplog):
    caplog.set_level(logging.INFO, "serverless_assets")
    team.write({"models/a.sql": "select 1 as one"})
    team.project.manifest()
    team.project.manifest()
    [record] = [record for record in caplog.records if record.name.startswith("serverless_assets")]
    assert (
        record.getMessage() == f"Parsing the dbt project {team.project.directory}, which is new or changed."
    )


def test_a_build_of_whole_models_parses_nothing_again(pipeline: Pipeline):
    project = pipeline.parts.project
    failure = dbt_runner.invoke(
        ["parse"],
        project.directory,
        project.runs,
        {**project.variables, "SERVERLESS_MONTHS": ""},
        project.partial_parse,
    )
    assert failure is None
    assert json.loads((project.runs / "perf_info.json").read_text())["parsed_path_count"] == 0
