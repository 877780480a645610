"""A run that somebody stops in the UI stops its call on Modal: there, too, nothing works on unasked."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from serverless_assets.project_root import PROJECT_ROOT
from tests.services.modal.harness import modal_server
from tests.ui.client import until
from tests.ui.serve import serve
from tests.ui.test_stopping import TERMINATE


@pytest.fixture
def modal(tmp_path):
    with modal_server(tmp_path / "modal") as server:
        variables = {**os.environ, **server.variables}
        deploy = [Path(sys.executable).with_name("serverless"), "deploy-modal"]
        subprocess.run(deploy, env=variables, cwd=PROJECT_ROOT, check=True)
        yield server


def test_a_run_that_is_stopped_cancels_its_call_on_modal(tmp_path, modal):
    with serve(tmp_path / "home", {**modal.variables, "SERVERLESS_COMPUTE": "modal"}) as ui:
        run_id = ui.launch()
        until(lambda: held_container(modal), "a container is at work", pause=0.02)
        (call,) = modal.calls()
        assert ui.ask(TERMINATE, id=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"
        assert ui.status_at_the_end(run_id) == "CANCELED"
        assert modal.wait_finished(call.call_id).status == "cancelled"
        assert not (ui.home / "warehouse.duckdb").exists()


def held_container(server):
    """The container of a call, held so that the call does not come to an end by itself."""
    for child in psutil.Process(server.pid).children(recursive=True):
        try:
            if "modal._container_entrypoint" in " ".join(child.cmdline()):
                child.suspend()
                return child
        except psutil.NoSuchProcess:
            continue
    return None
