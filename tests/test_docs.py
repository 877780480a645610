"""README and docs name commands, options, settings and files that exist."""

import re
from pathlib import Path
from typing import get_args

import click
import pytest
import yaml

from serverless_assets.cli import main
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.run_inputs import Cpu, CustomisedStyle, Memory, RunForecast, RunInputs
from serverless_assets.settings import Settings

README = PROJECT_ROOT / "README.md"
PAGES = [README, PROJECT_ROOT / "CONTRIBUTING.md", *sorted((PROJECT_ROOT / "docs").glob("*.md"))]
TEXTS = {page: page.read_text() for page in PAGES}
# What a page shows as code: a line that is indented by four spaces, or text in backquotes.
CODE = re.compile(r"^    (\S.*)$|`([^`]+)`", re.MULTILINE)


def commands(program: str) -> set[str]:
    """What the pages show of calls of this program, without comments."""
    snippets = (
        match[1] or " ".join(match[2].split()) for text in TEXTS.values() for match in CODE.finditer(text)
    )
    calls = (re.search(rf"(?:^|\s|/){program} ([^#;|]+)", snippet) for snippet in snippets)
    return {call[1].strip() for call in calls if call}


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", TEXTS[page], re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page):
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]+))?\)", TEXTS[page]):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def test_the_readme_leads_to_every_page():
    linked = set(re.findall(r"\((docs/[\w-]+\.md)", TEXTS[README]))
    assert linked == {
        page.relative_to(PROJECT_ROOT).as_posix() for page in PAGES if page.parent.name == "docs"
    }


def test_every_command_of_serverless_exists_with_its_options():
    calls = commands("serverless")
    assert len(calls) > 20
    for call in calls:
        name, *words = call.split()
        if name.startswith("-"):
            continue
        assert name in main.commands or name == "COMMAND", call
        if name in main.commands:
            known = {option for parameter in main.commands[name].params for option in parameter.opts} | {
                "--help"
            }
            assert {word for word in words if word.startswith("-")} <= known, call


def test_every_command_is_described_on_the_page_of_commands():
    page = TEXTS[PROJECT_ROOT / "docs" / "command-line.md"]
    missing = {name for name in main.commands if f"`serverless {name}" not in page}
    options = {
        option
        for command in main.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
        if option not in ("--yes", "--name") and option not in page
    }
    assert (missing, options) == (set(), set())


def test_every_target_of_make_exists():
    targets = set(re.findall(r"^([\w-]+):", (PROJECT_ROOT / "Makefile").read_text(), re.MULTILINE))
    calls = {call.split()[0] for call in commands("make")}
    assert len(calls) > 10
    assert calls <= targets


def test_every_setting_is_on_the_page_of_settings_and_no_other_is_named():
    settings = {field.alias for field in Settings.model_fields.values() if field.alias}
    page = TEXTS[PROJECT_ROOT / "docs" / "settings.md"]
    assert {name for name in settings if f"`{name}`" not in page} == set()
    code = "".join(
        path.read_text()
        for folder in ("serverless_assets", "dbt_project", "tests", "benchmarks")
        for path in (PROJECT_ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sql", ".yml") and path != Path(__file__)
    )
    named = {name for text in TEXTS.values() for name in re.findall(r"SERVERLESS_[A-Z_]+", text)}
    assert {name for name in named if name not in code} == set()


def test_the_examples_of_a_run_config_have_every_choice_and_are_taken():
    page = TEXTS[PROJECT_ROOT / "docs" / "dagster.md"]
    examples = re.findall(r"^    resources:\n(?:    .+\n)+", page, re.MULTILINE)
    horizon, choices = (yaml.safe_load(one)["resources"]["run_inputs"]["config"] for one in examples)
    assert RunInputs(**horizon).checked().forecast.style.nr_days_fcst == 30
    forecast = choices["forecast"]["run"]
    style = forecast["style"]["customised"]
    for chosen, of, selector in (
        (choices, RunInputs, set()),
        (forecast, RunForecast, {"forecast"}),
        (style, CustomisedStyle, {"style"}),
    ):
        assert {*chosen} == of.model_fields.keys() - selector
    chosen = RunForecast(**{**forecast, "style": CustomisedStyle(**style)})
    assert RunInputs(forecast=chosen).checked().forecast.style.html_report == "october.html"
    for of in (Cpu, Memory):
        assert ", ".join(f'`"{size}"`' for size in get_args(of)) in page


def test_the_page_on_the_flow_has_the_run_inputs_and_every_column_with_its_type(green):
    page = TEXTS[PROJECT_ROOT / "docs" / "kestra.md"]
    named = {name for name in CustomisedStyle.model_fields if name != "style"} | {
        "cpu",
        "memory",
        "dataset_url",
    }
    assert {name for name in named | {"ingestion", "forecast"} if f"`{name}`" not in page} == set()
    rows = dict(re.findall(r"^\| `(\w+)` \| ((?:`\w+` [a-z0-9(,)]+(?:, )?)+) \|$", page, re.MULTILINE))
    manifest = green.parts.manifest
    declared = {
        node["name"]: ", ".join(f"`{name}` {column['data_type']}" for name, column in node["columns"].items())
        for node in [*manifest["sources"].values(), *manifest["nodes"].values()]
        if node["name"] in rows
    }
    assert rows == declared and len(rows) == 16
    assert page.count("| |\n") == 0, "a difference without a reason"
