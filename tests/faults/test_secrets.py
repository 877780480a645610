"""Secrets are planted in every variable that may carry one; no run that uses them leaves any behind."""

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest

from serverless_assets.automation.alerts import Alerts
from serverless_assets.automation.sensors import run_sensor
from serverless_assets.settings import Settings
from tests.automation.hook import SECRET as HOOK_SECRET
from tests.automation.hook import Hook, hook
from tests.faults.processes import run
from tests.faults.tally import Tally
from tests.faults.world import World

KIND = "secrets"
SECRETS = {
    "user of the source": "planted-user-7f3a",
    "password of the source": "planted-pa:ss/wo@rd-91c2",
    "token of the source": "planted-token+e5d8=",
    "path of the alert URL": HOOK_SECRET,
    "Modal token id": "ak-planted-token-id-44b0",
    "Modal token secret": "as-planted-token-secret-c7e1",
    "Google private key": "planted-private-key-d2f9",
    "AWS secret": "planted-aws-secret-a1b6",
    "database password": "planted-database-password-3e8c",
}


def variables(place: World, alerts: Hook, folder: Path) -> dict[str, str]:
    """The settings of a team that has all its secrets in the environment."""
    credentials = folder / "google.json"
    key = {"type": "service_account", "private_key": SECRETS["Google private key"], "project_id": "p"}
    credentials.write_text(json.dumps(key))
    user, password, token = (
        quote(SECRETS[f"{name} of the source"], "") for name in ("user", "password", "token")
    )
    address = place.source.url.replace("http://", f"http://{user}:{password}@")
    return {
        **place.variables,
        "SERVERLESS_DATASET_URL": f"{address}/?token={token}",
        "SERVERLESS_ALERT_URL": alerts.url,
        "MODAL_TOKEN_ID": SECRETS["Modal token id"],
        "MODAL_TOKEN_SECRET": SECRETS["Modal token secret"],
        "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
        "AWS_SECRET_ACCESS_KEY": SECRETS["AWS secret"],
        "DATABASE_URL": f"postgresql://u:{SECRETS['database password']}@db/x",
    }


def spellings(secret: str) -> list[bytes]:
    """A secret as it may be written down: as it is, quoted for a URL, in JSON, in base64."""
    return [
        secret.encode(),
        quote(secret, "").encode(),
        quote(secret).encode(),
        json.dumps(secret)[1:-1].encode(),
        base64.b64encode(secret.encode()).rstrip(b"=")[:-1],
    ]


def places_of(secret: str, contents: Mapping[str, bytes]) -> list[str]:
    return [name for name, content in contents.items() if any(word in content for word in spellings(secret))]


def contents_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file: as it is, and what it says once it is unpacked."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        name, content = str(path.relative_to(folder)), path.read_bytes()
        yield name, content
        if content.startswith(b"\x1f\x8b"):
            yield f"{name} (unpacked)", gzip.decompress(content)
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield f"{name} (rows)", repr((table.schema.metadata, table.to_pydict())).encode()
        if path.suffix == ".duckdb":
            yield f"{name} (rows)", warehouse_text(path).encode()


def warehouse_text(path: Path) -> str:
    with duckdb.connect(str(path), read_only=True) as connection:
        texts = [
            connection.execute(f"select * from {of}()").fetchall()
            for of in ("duckdb_tables", "duckdb_views", "duckdb_columns")
        ]
        names = connection.execute(
            "select table_schema, table_name from information_schema.tables"
        ).fetchall()
        texts += [
            connection.execute(f'select * from "{schema}"."{name}"').fetchall() for schema, name in names
        ]
    return repr(texts)


@pytest.fixture
def alerts() -> Iterator[Hook]:
    with hook() as opened:
        yield opened


def test_no_secret_is_found_after_runs_that_succeed_and_fail(
    place: World,
    template: Path,
    attempt: Tally,
    alerts: Hook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place.put(template)
    planted = variables(place, alerts, tmp_path)
    nobody = re.sub(r"@127\.0\.0\.1:\d+", "@127.0.0.1:9", planted["SERVERLESS_DATASET_URL"])
    commands: list[tuple[list[str], dict[str, str]]] = [
        (["run", "--rebuild"], {}),
        (["run", "ingest"], {"SERVERLESS_DATASET_URL": nobody}),
        (["plan"], {}),
        (["doctor"], {}),
        (["run"], {"SERVERLESS_DATASET_URL": planted["SERVERLESS_DATASET_URL"].replace("http:", "htp:")}),
        (["run"], {"SERVERLESS_COMPUTE": "modal", "MODAL_SERVER_URL": "http://127.0.0.1:9"}),
    ]
    for name, value in planted.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAGSTER_HOME", str(place.home / "dagster"))
    # What the daemon does: it looks before and after the run that fails.
    sensor = run_sensor("run_failed", Alerts.of(Settings.from_environ()))
    with dg.DagsterInstance.get() as instance:
        first = sensor.evaluate_tick(dg.build_sensor_context(instance))
    contents = {}
    for n, (words, others) in enumerate(commands):
        code, text = run(words, {**planted, **others}, place.folder / "output.txt")
        contents[f"output of {' '.join(words)} ({n}), exit code {code}"] = text.encode()
        if n == 0:
            assert code == 0, text
    with dg.DagsterInstance.get() as instance:
        tick = sensor.evaluate_tick(dg.build_sensor_context(instance, first.cursor))
        contents["the tick"] = repr(tick).encode()
        runs = instance.get_runs()
        events = [instance.all_logs(found.run_id) for found in runs]
        contents["Dagster's runs and events"] = repr((runs, events)).encode()
    contents["the alerts"] = json.dumps(alerts.told).encode()
    contents |= dict(contents_below(place.home)) | dict(contents_below(place.temporary))
    for name, secret in SECRETS.items():
        with attempt(f"{name} in {len(contents):,} files and outputs") as fault:
            fault.other(*(f"it is in {found}" for found in places_of(secret, contents)))
    with attempt("the alerts") as fault:
        if not alerts.told:
            fault.silent("nobody was told of the run that failed")
    with attempt("the search itself") as fault:
        if not places_of("raw_orders", contents):
            fault.other("it does not find what is there")
