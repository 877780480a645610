"""The forecast as a Modal function: `make deploy-modal`, or for a file `modal run modal_forecast/app.py`.

A call carries its request and size. Neither the image nor the call holds a secret, and the worker reads
from no store.
"""

import sys
from typing import Any

import modal

from modal_forecast.code_version import REQUIREMENTS, code_version, is_worker_file

APP_NAME = "serverless-forecast"
FUNCTION_NAME = "forecast"

image = (
    modal.Image.debian_slim(python_version="3.11")
    .pip_install_from_requirements(str(REQUIREMENTS), extra_options="--no-deps")
    .add_local_python_source("modal_forecast", ignore=lambda path: not is_worker_file(path))
)

app = modal.App(APP_NAME)


# The defaults of a call without a size of its own. The caller decides on retries: it knows which failures are
# transient. A container that waits for more work costs as much as one that works.
@app.function(
    name=FUNCTION_NAME,
    image=image,
    cpu=(0.25, 1.0),
    memory=(256, 256),
    timeout=1800,
    retries=0,
    scaledown_window=2,
)
def forecast(request: bytes, code: str, cores: int = 1) -> dict[str, Any]:
    """Answer the bytes of a ForecastRequest from a caller whose own code is of version `code`.

    cores: the most that the call may use. A container sees all cores of its host.

    Returns:
        `code`: the version of this worker's code.
        `answer`: the bytes of handler.handle(); None if the caller's code is another, as the answer might be
            read wrongly, and if the request is empty, which asks for the version alone.
    """
    own = code_version()
    if code != own or not request:
        return {"code": own, "answer": None}
    from modal_forecast.worker import reserve_little_memory

    reserve_little_memory()
    from modal_forecast.handler import handle

    return {"code": own, "answer": handle(request, lambda line: print(line, flush=True), cores)}


@app.local_entrypoint()
def main(
    history: str,
    out: str = "forecast.csv",
    html: str = "",
    horizon: int = 0,
    country: str = "US",
    grain: str = "day",
) -> None:
    """Forecast a CSV file on Modal, without a deploy: see `python -m modal_forecast --help`."""
    from modal_forecast.__main__ import main as run

    options = ["--out", out, "--country", country, "--grain", grain]
    options += ["--horizon", str(horizon)] if horizon else []
    options += ["--html", html] if html else []
    exit_code = run(
        [history, *options],
        lambda request: forecast.remote(request, code_version())["answer"],
    )
    if exit_code:
        sys.exit(exit_code)
