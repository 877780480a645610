"""What the layers need of a warehouse, and nothing more."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Protocol

import pyarrow as pa


class WarehouseError(Exception):
    """The warehouse refused: the message says what and what to do."""


class Warehouse(Protocol):
    """One dataset of tables, each replaced in one step: a reader sees the old rows or the new."""

    def replace(self, table: str, rows: Path, note: Mapping[str, object]) -> None:
        """Replace the table by the rows of a parquet file; keep `note` with the relation itself."""

    def replace_between(self, table: str, rows: Path, column: str, start: date, end: date) -> None:
        """Replace just the rows with `start <= column < end`; create the table if there is none."""

    def query(self, statement: str) -> pa.Table:
        """The answer to a query; `relation()` gives the names to use in it."""

    def relation(self, table: str) -> str:
        """The table's quoted name for use in a query."""

    def label(self, table: str) -> str:
        """The table's full name as people write it: database, dataset, table."""

    def tables(self) -> set[str]:
        """The names of all tables and views in the dataset."""

    def note(self, table: str) -> Mapping[str, object]:
        """What was kept with the relation when it was written; empty if nothing was."""

    def row_count(self, table: str) -> int:
        """The number of rows now."""

    def dbt_variables(self) -> Mapping[str, str]:
        """The environment variables that point dbt's profile at this warehouse."""
