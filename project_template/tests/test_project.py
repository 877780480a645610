"""The code location as a whole."""

import dagster as dg

from serverless_assets.definitions import build
from serverless_assets.settings import Settings


def test_everything_that_is_declared_loads(monkeypatch, tmp_path):
    monkeypatch.setenv("SERVERLESS_HOME", str(tmp_path))
    dg.Definitions.validate_loadable(build(Settings.from_environ()))
