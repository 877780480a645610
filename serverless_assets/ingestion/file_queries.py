"""SQL on parquet files: an in-memory DuckDB that spills to disk, so tables larger than memory pass."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb

from serverless_assets import sql

MEMORY_LIMIT = "512MB"


@contextmanager
def audit_connection(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB that spills into `scratch`."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": str(scratch),
        # Keeping the order of rows would hold them in memory, and tables have no order.
        "preserve_insertion_order": "false",
    }
    with closing(duckdb.connect(config=config)) as connection:
        yield connection


def parquet(path: Path) -> str:
    """A parquet file as a table in SQL."""
    return f"read_parquet({sql.literal(str(path))})"
