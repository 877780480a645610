import json
import logging
import subprocess
import sys

import pytest

from modal_forecast.lean_imports import hidden, silenced

LEAN_PROCESS = """
import json, os, sys
from modal_forecast.lean_imports import load_prophet, prepare_lean_process

prepare_lean_process()
facts = {"pandas has loaded pyarrow": "pyarrow" in sys.modules}
from modal_forecast import handler
load_prophet()
facts["loaded"] = sorted({name.split(".")[0] for name in sys.modules})
import pyarrow
facts["pool"] = pyarrow.default_memory_pool().backend_name
import matplotlib
facts["matplotlib works"] = hasattr(matplotlib, "rcParams")
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def lean_process():
    process = subprocess.run([sys.executable, "-c", LEAN_PROCESS], capture_output=True, check=True, text=True)
    assert process.stderr == ""
    return json.loads(process.stdout)


def test_prophet_is_loaded_without_the_plotting_stacks(lean_process):
    assert "prophet" in lean_process["loaded"]
    assert not {"matplotlib", "plotly"} & set(lean_process["loaded"])


def test_matplotlib_can_be_imported_after_prophet(lean_process):
    assert lean_process["matplotlib works"]


def test_pandas_is_loaded_without_pyarrow_in_a_lean_process(lean_process):
    assert not lean_process["pandas has loaded pyarrow"]


def test_a_lean_process_reserves_no_address_space_for_arrow(lean_process):
    assert lean_process["pool"] == "system"


def test_what_runs_on_modal_needs_neither_dagster_nor_the_code_location(lean_process):
    assert not {"dagster", "serverless_assets"} & set(lean_process["loaded"])


def test_a_hidden_module_cannot_be_imported_until_the_block_ends():
    with hidden("antigravity"), pytest.raises(ImportError):
        import antigravity  # noqa: F401
    assert "antigravity" not in sys.modules


def test_a_module_that_is_loaded_already_stays():
    with hidden("json"):
        import json as still_there
    assert sys.modules["json"] is json is still_there


def test_modules_reappear_also_after_an_error():
    with pytest.raises(ZeroDivisionError), hidden("antigravity"):
        _ = 1 / 0
    assert "antigravity" not in sys.modules


def test_loggers_are_silent_inside_the_block_only(caplog):
    logger = logging.getLogger("chatty")
    with silenced("chatty"):
        logger.warning("inside")
    logger.warning("after")
    assert caplog.messages == ["after"]
