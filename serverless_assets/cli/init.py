"""`serverless init`: start a project that depends on this package and has nothing of the sample shop."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from serverless_assets.errors import UserError
from serverless_assets.project_root import CLONE

TEMPLATE = CLONE / "project_template"
# Files that a project takes from the clone as they are.
SHARED = (
    ".gitignore",
    "requirements.lock",
    "requirements-uv.lock",
    "dbt_project/.gitignore",
    "dbt_project/profiles.yml",
    "dbt_project/macros",
    "dbt_project/tests/generic",
)
# These macros are about the shop's money.
OF_THE_SHOP = "*dollars*"


class InitError(UserError):
    """A project cannot be started there; nothing was written."""


def start_project(folder: Path) -> Iterator[str]:
    """Write the files of a new project to `folder`. Yields what was done and what to do next, in sentences.

    Raises:
        InitError: the folder is not empty or cannot be made, or its name is not one of a project.
    """
    name = folder.name
    package = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", package):
        raise InitError(
            f"{name!r} cannot be the name of a project, as its Python package gets the same name. Use up to "
            "41 lowercase letters, digits and dashes, and begin with a letter, as in guest-forecast."
        )
    if package in {path.name for path in TEMPLATE.glob("*")}:
        raise InitError(f"{name!r} cannot be the name of a project, which has a folder {package} itself.")
    if find_spec(package):
        raise InitError(
            f"{name!r} cannot be the name of a project, as another Python package {package} is installed. "
            "Choose another name."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InitError(f"{folder} is not empty. Choose an empty folder or a new one.")
    if not TEMPLATE.is_dir():
        raise InitError(
            "`serverless init` works in a clone of serverless-assets, and this is an installed package. "
            "Clone the repository, then type `make run` and `.venv/bin/serverless init FOLDER` there."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InitError(
            f"The folder {folder} cannot be made: {error.strerror}. Choose one that you can write to."
        ) from None
    for path in SHARED:
        source, target = CLONE / path, folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(OF_THE_SHOP))
        else:
            shutil.copy(source, target)
    python, requirement = f"python3.{sys.version_info.minor}", dependency_on(CLONE)
    for source in TEMPLATE.rglob("*"):
        if source.is_file() and "__pycache__" not in source.parts:
            text = source.read_text().replace("my-project", name).replace("my_project", package)
            text = text.replace('"serverless-assets"', f'"{requirement}"').replace(
                " python3\n", f" {python}\n"
            )
            target = folder / str(source.relative_to(TEMPLATE)).replace("my_project", package)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    yield f"Started {name} in {folder}. It depends on {requirement} (pyproject.toml)."
    yield "Next, there: `make test` sets it up, and `.venv/bin/serverless add-table URL` declares a table."


def dependency_on(clone: Path) -> str:
    """Return this package as a dependency: the commit of the clone's remote, or else the clone itself."""
    remote, commit = (
        subprocess.run(["git", "-C", str(clone), *words], capture_output=True, text=True).stdout.strip()
        for words in (["remote", "get-url", "origin"], ["rev-parse", "HEAD"])
    )
    if not (remote and commit):
        return f"serverless-assets @ {clone.as_uri()}"
    if (path := clone / remote).exists():
        remote = path.resolve().as_uri()
    elif "://" not in remote:
        # Such as git@github.com:team/serverless-assets.git.
        remote = f"ssh://{remote.replace(':', '/', 1)}"
    parts = urlsplit(remote)
    if parts.scheme.startswith("http"):
        # Without a token, which would be committed with the project.
        remote = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return f"serverless-assets @ git+{remote}@{commit}"
