"""Whose project runs: one that depends on this package, or else the clone that the package is in."""

import sys
import tomllib
from contextlib import suppress
from pathlib import Path

CLONE = Path(__file__).resolve().parent.parent
CODE_LOCATION = "serverless_assets.definitions"


def find_project() -> tuple[Path, str]:
    """Return the folder of the project, and the module that its pyproject.toml names as the root of it.

    It is the first folder from the current one, then from that of the virtual environment, upwards with a
    project of dg whose definitions are those of this package; else the clone.
    """
    starts = [Path(sys.prefix)]
    # Where the current folder was deleted, a command says so (cli/main.py).
    with suppress(FileNotFoundError):
        starts.insert(0, Path.cwd())
    for start in starts:
        for folder in (start, *start.parents):
            try:
                project = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["dg"]["project"]
                root = project["root_module"]
                if project.get("code_location_target_module", f"{root}.definitions") == CODE_LOCATION:
                    return folder, root
            except (OSError, KeyError, TypeError, ValueError):
                # There is no such file, or it is of another kind of project.
                continue
    return CLONE, "serverless_assets"


PROJECT_ROOT, ROOT_MODULE = find_project()
