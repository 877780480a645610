"""The commands of the tutorial, and those that README shows, print what the pages show."""

import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from serverless_assets.settings import PROJECT_ROOT
from tests.shown_output import is_as_shown, steps
from tests.test_docs_commands import BIN, block, blocks, shell


def test_output_is_as_shown_whatever_its_numbers_and_ids_are():
    shown = "what     rows\nraw_visits  7,378  by run 99641220, 0.5 s\n...\n\n6 to build"
    printed = (
        "what  rows\nraw_visits  12  by run 1a2b3c4d-1234-abcd-0000-1234567890ab, 10 s\na\nb\n\n7 to build\n"
    )
    assert is_as_shown(printed, shown)
    for other in ("", "what rows\n6 to build", printed.replace("build", "reuse"), f"{printed}more\n"):
        assert not is_as_shown(other, shown)


@pytest.mark.slow
def test_the_tutorial_prints_what_it_shows(tmp_path: Path):
    clone = tmp_path / "clone"
    clone.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    of_this_environment = {
        "make ": f"make BIN={BIN} -o .venv/ready ",
        "$PWD/.venv/bin": str(BIN),
        ".venv/bin/serverless": str(BIN / "serverless"),
        ":8000": f":{port}",
        " 8000 ": f" {port} ",
    }
    script, shown_outputs = ["trap 'kill $(jobs -p)' EXIT"], []
    for command, shown in (step for text in blocks("docs/tutorial.md") for step in steps(text)):
        for of_page, here in of_this_environment.items():
            command, shown = command.replace(of_page, here), shown.replace(of_page, here)
        shown_outputs.append((command, shown))
        # A command may end with an error: that of the broken test does, and the page shows it.
        fails = "\nFailed in " in shown
        script.append(f"{{ {command}\n}} 2>&1 {'&& exit 1 || true' if fails else ''}\necho '@@'")
    printed = shell("\n".join(script), clone).split("@@\n")
    assert len(shown_outputs) > 15
    for (command, shown), output in zip(shown_outputs, printed, strict=False):
        assert is_as_shown(output, shown), f"$ {command}\n{output}\nThe page shows:\n{shown}"


@pytest.mark.slow
def test_the_readme_shows_what_plan_and_why_print_of_an_edited_model(pipeline, serverless, tmp_path: Path):
    project = tmp_path / "dbt_project"
    shutil.copytree(PROJECT_ROOT / "dbt_project", project, ignore=shutil.ignore_patterns("target", "logs"))
    edited = replace(pipeline, variables={**pipeline.variables, "SERVERLESS_DBT_PROJECT": str(project)})
    model = project / "models" / "marts" / "customers.sql"
    model.write_text(re.sub(r"count_lifetime_orders > 1", "count_lifetime_orders > 2", model.read_text()))
    for command, shown in steps(block("README.md", "$ serverless plan")):
        printed = serverless(edited, *command.split()[1:]).output
        assert is_as_shown(printed, shown), f"$ {command}\n{printed}\nThe page shows:\n{shown}"
