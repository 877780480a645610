"""DuckDB files: opened once no other process has them open, and checked for damage."""

import logging
import re
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import duckdb

from serverless_assets import sql
from serverless_assets.warehouse import WarehouseError
from serverless_assets.warehouse.staging import drop_staged

# How long to wait for another process to close the file. Runs take turns: it is a person's, as a rule.
SECONDS_TO_WAIT_FOR_FILE = 60.0
SECONDS_BETWEEN_ATTEMPTS = 0.25
SECONDS_BETWEEN_MESSAGES = 15.0
# Connections of one process to one file must agree on their configuration: this lets dbt's process count a
# model's rows while dbt is at work.
CONFIGURATION = {"custom_user_agent": "dagster"}
# The folder of the further databases in which models are built, beside the warehouse's file.
DATABASES = "databases"
LOCKED = "Could not set lock on file"
LOCKED_BY = re.compile(r"Conflicting lock is held in (?P<program>.+?) \(PID (?P<pid>\d+)\)")

# What `dagster.get_dagster_logger` returns: within a run, the run's log. Importing Dagster takes seconds.
log = logging.getLogger("dagster.builtin.warehouse")


def open_file(path: Path, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open the file, and attach those beside it; if another process has it open, wait a while for that.

    Raises:
        WarehouseError: it stayed open there.
    """
    deadline = time.monotonic() + SECONDS_TO_WAIT_FOR_FILE
    next_message = 0.0
    while True:
        try:
            return _open(path, read_only)
        except duckdb.IOException as error:
            holder = _lock_holder(error)
            if holder is None:
                raise
        seconds_left = deadline - time.monotonic()
        if seconds_left <= 0:
            raise WarehouseError(
                f"{path} is still open in {holder} after {SECONDS_TO_WAIT_FOR_FILE:.0f} s, and "
                "DuckDB lets no other process in. Close it there, then run again."
            )
        if time.monotonic() >= next_message:
            log.warning(
                f"{path} is open in {holder}, and DuckDB lets no other process in. "
                f"Waiting up to {seconds_left:.0f} s for it to be closed."
            )
            next_message = time.monotonic() + SECONDS_BETWEEN_MESSAGES
        time.sleep(SECONDS_BETWEEN_ATTEMPTS)


def _open(path: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(path), read_only, config={**CONFIGURATION})
    try:
        for file in databases_beside(path):
            connection.execute(
                f"attach if not exists {sql.literal(str(file))} as {sql.identifier(file.stem)}"
            )
    except duckdb.Error:
        connection.close()
        raise
    return connection


def flush(path: Path) -> None:
    """Write everything that is committed into the file itself, so that a copy of it is whole.

    Raises:
        WarehouseError: it cannot be written to.
    """
    try:
        with closing(open_file(path)) as connection:
            connection.execute("checkpoint")
    except duckdb.Error as error:
        raise WarehouseError(f"{path.name}: {error}") from error


def databases_beside(path: Path) -> Sequence[Path]:
    """Return the files of the databases beside a warehouse's file, each named after its database."""
    return sorted((path.parent / DATABASES).glob("*.duckdb"))


def _lock_holder(error: duckdb.Error) -> str | None:
    """The process that has the file open, if that is why DuckDB could not open it."""
    if LOCKED not in str(error):
        return None
    holder = LOCKED_BY.search(str(error))
    return f"process {holder['pid']} ({Path(holder['program']).name})" if holder else "another process"


def damage_of(path: Path) -> str | None:
    """Return DuckDB's message if a file cannot be opened as a DuckDB database; None if it can."""
    try:
        duckdb.connect(str(path), read_only=True, config={**CONFIGURATION}).close()
    except duckdb.Error as error:
        # A file that another process has open is not damaged.
        return None if LOCKED in str(error) else _first_line(error)
    return None


def verify(path: Path) -> str | None:
    """Return DuckDB's message if not all of a DuckDB file can be read; None if it can.

    Reads every row, which has DuckDB compare the checksum of every block. Rows of a write-ahead log beside
    the file are written into it.
    """
    try:
        with closing(duckdb.connect(str(path), config={**CONFIGURATION})) as connection:
            drop_staged(connection)
            connection.execute("checkpoint")
            tables = connection.execute(
                "select database_name, schema_name, table_name from duckdb_tables()"
                " where not internal and not temporary"
            ).fetchall()
            for names in tables:
                # With the database's name, as a schema may have the same.
                relation = sql.identifier(*names)
                connection.execute(f"select bit_xor(hash(t)) from {relation} t").fetchall()
    except duckdb.Error as error:
        return None if LOCKED in str(error) else _first_line(error)
    return None


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0]
