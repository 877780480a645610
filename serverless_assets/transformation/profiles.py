"""The dbt profile that every command gets: the project's own, pointed at this environment's warehouse."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Template, TemplateError

from serverless_assets.errors import UserError
from serverless_assets.files import write_atomically
from serverless_assets.warehouse.duckdb_file import CONFIGURATION, databases_beside

# What the environment decides, by target. An output of the project's profiles.yml keeps its other keys.
DECIDED: Mapping[str, Mapping[str, Any]] = {
    "local": {
        "type": "duckdb",
        "path": "{{ env_var('SERVERLESS_DUCKDB_PATH') }}",
        "schema": "{{ env_var('DBT_SCHEMA') }}",
    },
    "gcp": {
        "type": "bigquery",
        "project": "{{ env_var('GOOGLE_CLOUD_PROJECT', '') }}",
        "dataset": "{{ env_var('DBT_SCHEMA') }}",
        "location": "{{ env_var('SERVERLESS_LOCATION', 'US') }}",
        # BigQuery refuses a query that would read more, before it costs.
        "maximum_bytes_billed": "{{ env_var('SERVERLESS_MAX_BYTES_BILLED', '10737418240') | as_number }}",
    },
}
# What applies where the project's profiles.yml says nothing.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "local": {"threads": 2},
    "gcp": {
        "method": "oauth",
        "threads": 4,
        "execution_project": "{{ env_var('SERVERLESS_EXECUTION_PROJECT') }}",
        # As the other jobs of a run: they are tried again for 90 s, and not a number of times, and end after
        # half an hour (google_errors.PATIENCE, JOB_TIMEOUT_MS in warehouse/bigquery_jobs.py).
        "job_retries": 100,
        "job_retry_deadline_seconds": 90,
        "job_execution_timeout_seconds": 1800,
    },
}
# Other names of keys that the environment decides.
SYNONYMS = ("database", "dbname", "schema", "dataset", "project")
# The key of dbt's `target.name` beside the environment variables that code reads.
TARGET_NAME = "target.name"


class ProfileError(UserError):
    """The profiles.yml of the dbt project cannot be used; the message says why."""


def write_profile(project_dir: Path, folder: Path, variables: Mapping[str, str]) -> tuple[str, str]:
    """Write the profiles.yml for dbt's commands into a folder.

    Args:
        project_dir: the dbt project. Of its own profiles.yml, the output of this target is taken, or else
            the default one, or any other, if it is for the same warehouse.
        variables: those that dbt is run with: the target, which is `local` or `gcp`, and the warehouse. Of
            DuckDB, the databases beside its file are attached.

    Returns:
        the names of the profile and of its target.

    Raises:
        ProfileError: the project's profiles.yml is not YAML.
    """
    target = variables["SERVERLESS_ENV"]
    name, target_name, own = _own_output(project_dir, target)
    output = {**DEFAULTS[target], **own}
    output = {key: value for key, value in output.items() if key not in SYNONYMS} | dict(DECIDED[target])
    if target == "local":
        output["config_options"] = {**(output.get("config_options") or {}), **CONFIGURATION}
        built = databases_beside(Path(variables["SERVERLESS_DUCKDB_PATH"]))
        names = {file.stem.lower() for file in built}
        attached = [
            database for database in own.get("attach") or () if _database_of(database).lower() not in names
        ]
        if built:
            output["attach"] = [*attached, *({"path": str(file)} for file in built)]
    path, content = folder / "profiles.yml", {name: {"target": target_name, "outputs": {target_name: output}}}
    text = yaml.safe_dump(content, sort_keys=True).encode()
    if not path.exists() or path.read_bytes() != text:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    return name, target_name


def target_name(project_dir: Path, target: str) -> str:
    """Return dbt's `target.name`: that of the project's own output, if it has one for this target.

    Raises:
        ProfileError: the project's profiles.yml is not YAML.
    """
    return _own_output(project_dir, target)[1]


def read_yaml(path: Path) -> Mapping[str, Any]:
    """The mapping in a file; empty if there is none, or none that can be read: dbt says better why."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _own_output(project_dir: Path, target: str) -> tuple[str, str, Mapping[str, Any]]:
    """Return the name of the profile, and the name and the content of its output for this target."""
    name = str(read_yaml(project_dir / "dbt_project.yml").get("profile") or "serverless")
    path = project_dir / "profiles.yml"
    if not path.is_file():
        return name, target, {}
    try:
        profile = (yaml.safe_load(path.read_text()) or {}).get(name) or {}
        outputs = profile.get("outputs") or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise ProfileError(f"{path} cannot be read: {error}") from None
    for candidate in (target, _rendered(profile.get("target")), *outputs):
        output = outputs.get(candidate)
        if isinstance(output, dict) and output.get("type") == DECIDED[target]["type"]:
            return name, str(candidate), output
    return name, target, {}


def attached_types(project_dir: Path, target: str) -> Mapping[str, str]:
    """Return the type of each database that the project's own output attaches, by name in lower case.

    Raises:
        ProfileError: the project's profiles.yml is not YAML.
    """
    _, _, own = _own_output(project_dir, target)
    return {
        _database_of(database).lower(): str(database.get("type") or "duckdb")
        for database in own.get("attach") or ()
        if isinstance(database, dict)
    }


def _database_of(attached: object) -> str:
    """Return the name of a database that an output attaches: as dbt-duckdb, that of the file by default."""
    if not isinstance(attached, dict):
        # dbt says what it should be.
        return ""
    return _rendered(attached.get("alias")) or Path(_rendered(attached.get("path"))).name.partition(".")[0]


def _rendered(text: object) -> str:
    """Return a value of profiles.yml with the environment variables that it names."""
    try:
        return Template(str(text or "")).render(
            env_var=lambda name, default="": os.environ.get(name, default)
        )
    except TemplateError:
        # dbt would say so, of an output that it is given.
        return ""
