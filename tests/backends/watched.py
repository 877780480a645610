"""A proxy in front of BigQuery's emulator, what it sees, and what Google answers in the emulator's place."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.cloud import bigquery

from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from tests.backends.stock import FEBRUARY, MARCH, ORDERS, STOCK, kept_orders
from tests.services.bigquery import PROJECT, BigQuery
from tests.services.gcs import Gcs
from tests.services.proxy import Answer, Asked, Proxy, proxy

if TYPE_CHECKING:
    from tests.backends.conftest import Backend, Google

DENIED = Answer.error(
    403,
    "accessDenied",
    "Access Denied: Dataset p:d: Permission bigquery.tables.create denied on dataset p:d.",
)
TOO_DEAR = Answer.error(
    400, "bytesBilledLimitExceeded", "Query exceeded limit for bytes billed: 10. 10485760 or higher required."
)

Write = Callable[[BigQueryWarehouse, Path], object]
FIRST_NOTE = {"content": "first"}


def write_all(warehouse: BigQueryWarehouse, path: Path) -> object:
    return warehouse.replace_rows(ORDERS, path, {"content": "second"})


def write_window(warehouse: BigQueryWarehouse, path: Path) -> object:
    return warehouse.replace_rows(ORDERS, path, {"content": "second"}, (FEBRUARY, MARCH))


@dataclass(frozen=True)
class Watched:
    """A backend with rows in its warehouse, all of whose calls go through `proxy`."""

    backend: "Backend"
    warehouse: BigQueryWarehouse
    proxy: Proxy
    rows: Path

    def relations(self) -> set[str]:
        """The names of everything in the dataset, as Google knows them."""
        return relations_of(self.warehouse)


def relations_of(warehouse: BigQueryWarehouse) -> set[str]:
    with bigquery.Client(warehouse.project) as client:
        return {item.table_id for item in client.list_tables(warehouse.dataset)}


@contextmanager
def watching(service: BigQuery | Gcs) -> Iterator[Proxy]:
    """A proxy in front of a service, through which clients that are made in the block call it."""
    with proxy(service.url) as running, pytest.MonkeyPatch.context() as patch:
        for name in {"BIGQUERY_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"} & service.variables.keys():
            patch.setenv(name, running.url)
        yield running


def statements(watched: Proxy) -> list[str]:
    """The statements that BigQuery was asked for so far, uploads aside."""
    return [request.json["configuration"]["query"]["query"] for request in watched.asked if is_swap(request)]


def refusing(method: str, path: str, answer: Answer) -> Callable[[Asked], Answer | None]:
    """An answer to every request of this kind."""

    def instead(request: Asked) -> Answer | None:
        return answer if request.method == method and path in request.path else None

    return instead


def changing(
    google: "Google", is_meant: Callable[[Asked], bool], change: Callable[[dict[str, Any]], object]
) -> Callable[[Asked], Answer | None]:
    """What the emulator answers to requests that are meant, changed."""

    def instead(request: Asked) -> Answer | None:
        if not is_meant(request):
            return None
        answer = requests.request(
            request.method,
            google.bigquery.url + request.path,
            data=request.body,
            headers={name: value for name, value in request.headers.items() if name != "Host"},
            timeout=60,
        )
        content = answer.json()
        if answer.ok:
            change(content)
        return Answer(answer.status_code, content)

    return instead


def losing(is_meant: Callable[[Asked], bool], condition: str) -> Callable[[Asked], Answer | None]:
    """Have tables lose the rows of this condition just before somebody asks for them by such a request."""

    def instead(request: Asked) -> Answer | None:
        if is_meant(request):
            *_, dataset, _, table = request.path.partition("?")[0].split("/")
            with bigquery.Client(PROJECT) as client:
                client.query(f"delete from `{PROJECT}`.`{dataset}`.`{table}` where {condition}").result()
        return None

    return instead


def is_swap(request: Asked) -> bool:
    return (
        request.method == "POST" and request.path.split("?")[0].endswith("/jobs") and not is_upload(request)
    )


def is_upload(request: Asked) -> bool:
    return request.path.startswith("/upload/")


def job(request: Mapping[str, Any], state: str, statistics: Mapping[str, Any]) -> Answer:
    return Answer(
        200,
        {
            "jobReference": {
                "projectId": PROJECT,
                "location": "EU",
                "jobId": "job",
                **request["jobReference"],
            },
            "configuration": request["configuration"],
            "status": {"state": state},
            "statistics": statistics,
        },
    )


def assert_nothing_changed(watched: Watched, note: Mapping[str, str] = FIRST_NOTE) -> None:
    watched.proxy.instead = lambda request: None
    assert kept_orders(watched.backend) == STOCK
    assert watched.warehouse.read_state("orders") == note
    assert watched.relations() == {"orders"}


def be_a_robot(watched: Watched, monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    """Call as a service account whose tokens come through the proxy; its private key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    content = {
        "type": "service_account",
        "client_email": "robot@example.com",
        "private_key": pem,
        "token_uri": f"{watched.proxy.url}/token",
    }
    path = folder / "key.json"
    path.write_text(json.dumps(content))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return pem
