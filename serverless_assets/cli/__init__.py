"""The command line: `serverless --help`."""

from serverless_assets.cli.main import main

__all__ = ["main"]
