"""docs/ARCHITECTURE.md names every module, and it and docstrings only what exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
SUFFIXES = (".py", ".sql", ".yml", ".j2", ".toml", ".in", ".md")


def listed_modules() -> set[str]:
    """The modules in the tables of files, each below the line that names its folder."""
    modules, folder = set(), ""
    for line in PAGE.splitlines():
        if match := re.fullmatch(r"In `(.+)/`:", line):
            folder = match[1]
        elif match := re.match(r"\| `([\w]+\.py)` \| .", line):
            modules.add(f"{folder}/{match[1]}")
    return modules


def test_every_module_is_in_the_table_of_its_folder():
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("serverless_assets", "modal_forecast")
        for path in (ROOT / package).rglob("*.py")
        if path.read_text().strip()
    }
    assert listed_modules() == modules


def test_every_path_on_the_page_exists():
    paths = [path for path in re.findall(r"`([\w./-]+)`", PAGE) if "/" in path and not path.startswith(".")]
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_file_that_is_named_without_its_folder_exists():
    names = {name for name in re.findall(r"`(\w[\w.]+)`", PAGE) if name.endswith(SUFFIXES)}
    tracked = {
        path.name
        for folder in ("serverless_assets", "modal_forecast", "dbt_project", "tests")
        for path in (ROOT / folder).rglob("*")
    } | {path.name for path in ROOT.iterdir()}
    assert names - tracked == set()


def test_every_file_and_function_of_a_module_that_a_docstring_names_exists():
    trees = {
        path: ast.parse(path.read_text())
        for package in ("serverless_assets", "modal_forecast")
        for path in (ROOT / package).rglob("*.py")
    }
    files = {path.name for path in trees} | {path.name for path in (ROOT / "tests").rglob("*.py")}
    functions: dict[str, set[str]] = {}
    for path, tree in trees.items():
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        functions.setdefault(path.stem, set()).update(names)
    missing = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            text = ast.get_docstring(node) or ""
            named = re.findall(r"([\w/]+\.py)\b", text)
            missing += [(path.name, file) for file in named if file.rpartition("/")[2] not in files]
            calls = re.findall(r"\b(\w+)\.(\w+)\(\)", text)
            missing += [
                (path.name, call) for call in calls if call[1] not in functions.get(call[0], {call[1]})
            ]
    assert missing == []
