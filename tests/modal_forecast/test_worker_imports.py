import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
from modal_forecast.worker import block_pandas

block_pandas()
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
    "prophet tried": answer.diagnostics["candidates"]["prophet"]["origins"],
    "peak": answer.diagnostics["peak_memory_mib"],
}))
"""


@pytest.fixture(scope="module")
def worker():
    process = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True, text=True)
    assert process.stderr == ""
    return json.loads(process.stdout)


def test_a_forecast_loads_neither_pandas_nor_the_python_side_of_prophet(worker):
    assert not {"pandas", "prophet", "cmdstanpy", "matplotlib", "plotly"} & set(worker["loaded"])


def test_prophet_is_tried_all_the_same(worker):
    assert worker["prophet tried"] > 0


def test_a_worker_stays_under_128_mib(worker):
    assert worker["peak"] < 128


def test_a_worker_reserves_no_address_space_for_arrow(worker):
    assert worker["pool"] == "system"


def test_what_runs_on_modal_needs_neither_dagster_nor_the_code_location(worker):
    assert not {"dagster", "serverless_assets"} & set(worker["loaded"])
