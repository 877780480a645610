"""Whether a DuckDB file can be read: its header and catalog, or every row."""

from contextlib import closing
from pathlib import Path

import duckdb

from serverless_assets import sql
from serverless_assets.warehouse.duckdb import CONFIGURATION, LOCKED


def damage_of(path: Path) -> str | None:
    """Why a file cannot be opened as a DuckDB database, in DuckDB's words; None if it can."""
    try:
        duckdb.connect(str(path), read_only=True, config={**CONFIGURATION}).close()
    except duckdb.Error as error:
        # A file that another process has open is not damaged.
        return None if LOCKED in str(error) else _first_line(error)
    return None


def verify(path: Path) -> str | None:
    """Why not all of a DuckDB file can be read, in DuckDB's words; None if it can.

    Reads every row, which has DuckDB compare the checksum of every block. Rows of a write-ahead log beside
    the file are written into it.
    """
    try:
        with closing(duckdb.connect(str(path), config={**CONFIGURATION})) as connection:
            connection.execute("checkpoint")
            tables = connection.execute(
                "select schema_name, table_name from duckdb_tables() where not internal and not temporary"
            ).fetchall()
            for schema, table in tables:
                relation = sql.identifier(schema, table)
                connection.execute(f"select bit_xor(hash(t)) from {relation} t").fetchall()
    except duckdb.Error as error:
        return None if LOCKED in str(error) else _first_line(error)
    return None


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0]
