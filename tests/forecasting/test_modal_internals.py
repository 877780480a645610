"""What is used of Modal without being part of its public API is what this code takes it for."""

import ast
import socket

import pytest

from serverless_assets.forecasting import modal_errors
from serverless_assets.project_root import PROJECT_ROOT


def test_config_has_the_address_of_the_server_and_whether_proxies_are_used(monkeypatch):
    monkeypatch.setenv("MODAL_SERVER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MODAL_DISABLE_API_PROXY", "1")
    assert modal_errors.config["server_url"] == "http://127.0.0.1:9"
    assert modal_errors.config["disable_api_proxy"] is True


def test_server_that_listens_is_told_from_one_that_does_not(monkeypatch):
    monkeypatch.setenv("MODAL_DISABLE_API_PROXY", "1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MODAL_SERVER_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        modal_errors.refuse_if_nobody_listens()
    with pytest.raises(ConnectionRefusedError):
        modal_errors.refuse_if_nobody_listens()


def test_only_one_file_imports_the_configuration_of_modal():
    importing = {
        path.relative_to(PROJECT_ROOT).as_posix()
        for folder in ("serverless_assets", "modal_forecast")
        for path in (PROJECT_ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("modal.config", "modal._"))
    }
    assert importing == {"serverless_assets/forecasting/modal_errors.py"}
