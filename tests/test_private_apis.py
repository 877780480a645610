"""What is used of libraries outside of their public APIs is in one file each, and is what it is taken for.

Of Dagster and Modal, test_dagster_internals.py and forecasting/test_modal_internals.py check what it is.
"""

import ast
import importlib
import logging
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from dlt.sources.helpers.rest_client import RESTClient
from requests import Response

from serverless_assets import dagster_internals, dagster_storage
from serverless_assets.ingestion import dlt_internals
from serverless_assets.project_root import PROJECT_ROOT

# What is private: names of modules, attributes and strings in the code.
PRIVATE = {
    "Dagster": (
        r"dagster\._\w.*|dagster\.components\.core\..*|dagster_shared\..*",
        {"serverless_assets/dagster_internals.py", "serverless_assets/dagster_storage.py"},
    ),
    "Dagster's event log": (
        r"_event_to_row|_store_asset_event_tags",
        {"serverless_assets/dagster_storage.py"},
    ),
    "dagster-dbt": (
        r"dbt\.version|_get_check_\w+|_get_node_status|dagster_dbt\.core.*",
        {"serverless_assets/transformation/dbt_events.py"},
    ),
    "dbt": (
        r"dbt\.(?!cli\.main$|version$)\w+(\.\w+)*|SELECTOR_METHODS|_ENV|KNOWN_ENGINE_ENV_VARS",
        {"serverless_assets/transformation/dbt_internals.py"},
    ),
    "dlt": (
        r"dlt\.(?!sources\.helpers\.rest_client(\.(auth|paginators))?$).*",
        {"serverless_assets/ingestion/dlt_internals.py"},
    ),
    "Modal": (r"modal\.(config|_\w+).*", {"serverless_assets/forecasting/modal_errors.py"}),
    "Prophet": (r"prophet_model.*|stan_model.*|prophet\.models.*", set()),
}


def names_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module)):
                yield module
            case ast.Attribute(attr=name) | ast.FunctionDef(name=name) | ast.Constant(value=str(name)):
                yield name


@pytest.mark.parametrize("library", PRIVATE)
def test_what_is_private_of_a_library_is_in_one_file(library):
    pattern, files = PRIVATE[library]
    assert {
        path.relative_to(PROJECT_ROOT).as_posix()
        for folder in ("serverless_assets", "modal_forecast")
        for path in (PROJECT_ROOT / folder).rglob("*.py")
        if any(re.fullmatch(pattern, name) for name in names_in(ast.parse(path.read_text())))
    } == files


def test_dagster_warns_of_skipped_steps_in_the_logger_that_is_filtered():
    module = importlib.import_module(dagster_internals.STEP_LOGGER)
    assert module.logger is logging.getLogger(dagster_internals.STEP_LOGGER)


def test_an_event_log_of_dagster_has_the_methods_that_batches_use():
    assert {"_event_to_row", "_store_asset_event_tags"} <= vars(dagster_storage.SqlEventLogStorage).keys()


def test_dlt_is_given_a_configuration_and_says_where_rows_and_pages_are():
    RESTClient(base_url="", config=dlt_internals.RuntimeConfiguration())
    assert dlt_internals.find_response_page_data({"data": [{"id": 1}]}) == (("data",), [{"id": 1}])
    response = Response()
    response.headers["Link"] = '<https://shop.test/2>; rel="next"'
    for format in ("csv", "json"):
        assert dlt_internals.detect_paginator(response, format) == {"type": "header_link"}
    response._content = b'{"next": "https://shop.test/2"}'
    del response.headers["Link"]
    next_url = {"type": "json_link", "next_url_path": "next"}
    assert dlt_internals.detect_paginator(response, "json") == next_url


DBT = """
from serverless_assets.transformation import dbt_internals

variables = set(dbt_internals.engine_variables())
assert {"DBT_TARGET", "DBT_PROFILES_DIR", "DBT_FULL_REFRESH"} <= variables, variables
dbt_internals.select_by_unique_id()

import dbt.adapters.duckdb.connections as connections
from dbt.graph.selector import NodeSelector

assert NodeSelector.SELECTOR_METHODS["fqn"].__name__ == "ByUniqueId"
# None while no file is open, which `close_duckdb` asks.
assert connections.DuckDBConnectionManager._ENV is None
dbt_internals.close_duckdb()
"""


def test_dbt_has_what_its_process_uses():
    # In a process of its own, as this one has dagster-dbt without dbt.
    subprocess.run([sys.executable, "-c", DBT], check=True)
