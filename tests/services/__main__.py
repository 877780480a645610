"""Run a command against the cloud's services on loopback: `python -m tests.services serverless run`.

BigQuery's emulator, a Cloud Storage server and a Modal server are started, the worker is deployed, and the
command gets the variables that lead there, which are those that a user has too. Everything ends with it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.services.bigquery import bigquery
from tests.services.gcs import gcs
from tests.services.modal.harness import modal_server

BUCKET = "serverless-assets"


@contextmanager
def cloud(folder: Path) -> Iterator[Mapping[str, str]]:
    """All three services, and the variables of the environment `gcp` on them."""
    with (
        gcs(folder / "gcs") as store,
        bigquery(folder / "bigquery", store.root) as warehouse,
        modal_server(folder / "modal") as modal,
    ):
        yield {
            **store.variables,
            **warehouse.variables,
            **modal.variables,
            "SERVERLESS_ENV": "gcp",
            "SERVERLESS_BUCKET": BUCKET,
            # Without credentials, Google's library looks for a machine in the cloud, for seconds.
            "NO_GCE_CHECK": "true",
        }


def main(command: Sequence[str]) -> int:
    with TemporaryDirectory(prefix="cloud-") as folder, cloud(Path(folder)) as variables:
        environ = {**os.environ, **variables}
        print(
            "BigQuery, Cloud Storage and Modal are servers on this machine, which end with the command: "
            "nothing is paid for, and links to modal.com lead nowhere.\n",
            flush=True,
        )
        deployed = subprocess.run([Path(sys.executable).with_name("serverless"), "deploy-modal"], env=environ)
        code = deployed.returncode or subprocess.run(command, env=environ).returncode
        print("\nThe servers end here, and with them the tables and the report that were made.")
        return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
