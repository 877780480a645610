import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys, tempfile
from pathlib import Path
from modal_forecast.worker import reserve_little_memory

reserve_little_memory()
from modal_forecast import handler
from modal_forecast.messages import ForecastRequest
import numpy as np, pyarrow as pa

days = np.datetime64("2022-01-01") + np.arange(500)
values = 100 + np.random.default_rng(0).normal(0, 10, 500)
request = ForecastRequest(pa.table({"ds": days, "y": values}), 30, "US")
answer = handler.measured_forecast(request, lambda _: None)
print(json.dumps({
    "loaded": sorted({name.split(".")[0] for name in sys.modules}),
    "pool": pa.default_memory_pool().backend_name,
    "files of fits": [str(path) for path in Path(tempfile.gettempdir()).rglob("*") if path.is_file()],
    "prophet tried": answer.diagnostics["candidates"]["prophet"]["origins"],
    "peak": answer.diagnostics["peak_memory_mib"],
}))
"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def worker(scratch):
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert process.stderr == ""
    return json.loads(process.stdout)


def test_prophet_is_tried(worker):
    assert worker["prophet tried"] > 0


def test_prophet_leaves_no_files_behind_neither_after_a_forecast_nor_at_the_end(worker, scratch):
    assert worker["files of fits"] == []
    assert list(scratch.iterdir()) == []


def test_a_worker_of_one_series_stays_under_200_mib(worker):
    assert 50 < worker["peak"] < 200


def test_a_worker_reserves_no_address_space_for_arrow(worker):
    assert worker["pool"] == "system"


def test_what_runs_on_modal_needs_neither_dagster_nor_the_code_location(worker):
    assert not {"dagster", "serverless_assets"} & set(worker["loaded"])
