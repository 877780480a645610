"""BigQuery on loopback: bqemulator, in a venv of its own because its pins clash with ours.

It is unlike the real service, as far as this project is concerned: it forgets job labels, expiration times
and the labels of a table made by a statement, bills nothing, and everybody may do everything.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.services.process import answers, free_port, running

VENV = Path(__file__).parents[2] / ".venv-emulator"
PROJECT = "emulated-project"

# DuckDB would download the extension, and look for it in the home folder.
INSTALL_EXTENSION = """
import duckdb, duckdb_extension_spatial, pathlib
found = pathlib.Path(duckdb_extension_spatial.__file__).parent.rglob("*.duckdb_extension")
duckdb.execute(f"install '{next(found)}'")
"""


@dataclass(frozen=True)
class BigQuery:
    """A running server. `variables` lead Google's clients to it, with credentials that it takes."""

    url: str
    variables: Mapping[str, str]


@contextmanager
def bigquery(folder: Path, gcs_root: Path | None = None) -> Iterator[BigQuery]:
    """Run an empty server. It reads `gs://` addresses from the buckets in `gcs_root`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *(VENV / "bin" / "python", Path(__file__).with_name("emulator.py"), "start"),
        *("--ephemeral", "--log-level", "warning"),
        *("--rest-host", "127.0.0.1", "--rest-port", str(port)),
        *("--grpc-host", "127.0.0.1", "--grpc-port", str(free_port())),
    ]
    environ = {
        "HOME": str(_home()),
        "BQEMU_ENABLE_FORMAT_EXTENSIONS": "false",
        "BQEMU_UPLOAD_STAGING_DIR": str(folder / "uploads"),
        **({"BQEMU_GCS_LOCAL_ROOT": str(gcs_root)} if gcs_root else {}),
    }
    variables = {
        "BIGQUERY_EMULATOR_HOST": url,
        "GOOGLE_APPLICATION_CREDENTIALS": str(_credentials(folder)),
        "GOOGLE_CLOUD_PROJECT": PROJECT,
    }
    with running(command, folder / "bigquery.log", lambda: answers(f"{url}/readyz"), environ):
        yield BigQuery(url, variables)


def _home() -> Path:
    """A home folder in which DuckDB finds the extension that the server asks for."""
    python = VENV / "bin" / "python"
    if not (VENV / "bin" / "bqemulator").exists():
        raise RuntimeError("bqemulator is not set up: run make test-gcp")
    home = VENV / "home"
    if not list(home.rglob("spatial.duckdb_extension")):
        home.mkdir(exist_ok=True)
        environ = {**os.environ, "HOME": str(home)}
        subprocess.run([python, "-c", INSTALL_EXTENSION], env=environ, check=True)
    return home


def _credentials(folder: Path) -> Path:
    """Credentials of a person whose token never has to be renewed, which would need the network."""
    path = folder / "credentials.json"
    content = {
        "type": "authorized_user",
        "client_id": "nobody",
        "client_secret": "none",
        "refresh_token": "none",
        "token": "emulated",
        "expiry": "2099-01-01T00:00:00Z",
    }
    path.write_text(json.dumps(content))
    return path
