"""Series in CSV files: a history to read, a forecast to write."""

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from modal_forecast.messages import HISTORY_SCHEMA

if TYPE_CHECKING:
    from _csv import Reader

MISSING = {"", "na", "nan", "null"}


class CsvError(ValueError):
    """A file that holds no history; the text names the file, the line and the column."""


def read_history(path: Path) -> pa.Table:
    """The columns ds and y of a CSV file: ds date32 (ISO dates, or timestamps at midnight), y float64.

    An empty y is a missing day, other columns are ignored. Raises CsvError for anything else.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            values = _parse(path, csv.reader(file))
    except OSError as error:
        raise CsvError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CsvError(f"{path} is not text in UTF-8: save it as CSV with that encoding.") from error
    return pa.table({"ds": list(values), "y": list(values.values())}, schema=HISTORY_SCHEMA)


def forecast_csv(forecast: pa.Table) -> str:
    """The forecast as CSV, one line a day, numbers in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(forecast.column_names)
    writer.writerows(row.values() for row in forecast.to_pylist())
    return text.getvalue()


def write_together(contents: Mapping[Path, str]) -> None:
    """Write each text to its path, replacing what is there only once all of them are on disk.

    Readers see the old file or the new one, never a part. Raises OSError, and leaves the old files, if a text
    cannot be written.
    """
    written: dict[Path, Path] = {}
    try:
        for path, text in contents.items():
            written[path] = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            with written[path].open("x", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in written.items():
            temporary.replace(path)
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)


def _parse(path: Path, lines: "Reader") -> dict[date, float | None]:
    values: dict[date, float | None] = {}
    line_of: dict[date, int] = {}
    for number, cells in _rows(path, lines):
        day = _day(path, number, cells["ds"])
        if day in line_of:
            raise CsvError(f"{path}, line {number}, column ds: {day} is already on line {line_of[day]}.")
        line_of[day] = number
        values[day] = _value(path, number, cells["y"])
    return values


def _rows(path: Path, lines: "Reader") -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line number and cells by column name; blank lines are skipped."""
    try:
        header = [name.strip() for name in next(lines, [])]
        _check_header(path, header)
        for cells in lines:
            if not cells:
                continue
            if len(cells) != len(header):
                raise CsvError(
                    f"{path}, line {lines.line_num}: {len(cells)} cells, but {len(header)} columns in line 1."
                )
            yield lines.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise CsvError(f"{path}, line {lines.line_num}: {error}.") from error


def _check_header(path: Path, header: Sequence[str]) -> None:
    for needed in ("ds", "y"):
        if header.count(needed) != 1:
            raise CsvError(
                f"{path}, line 1: needs one column {needed}, and has {', '.join(header) or 'none'}. "
                "Name the columns there, separated by commas."
            )


def _day(path: Path, line: int, cell: str) -> date:
    try:
        moment = datetime.fromisoformat(cell.strip())
    except ValueError as error:
        raise CsvError(f"{path}, line {line}, column ds: {cell!r} is no date such as 2024-03-31.") from error
    if moment.time() != time():
        raise CsvError(f"{path}, line {line}, column ds: {cell!r} is not midnight. Give one row a day.")
    return moment.date()


def _value(path: Path, line: int, cell: str) -> float | None:
    if cell.strip().lower() in MISSING:
        return None
    try:
        # float() would read 1_000.
        value = float(cell.replace("_", "?"))
    except ValueError as error:
        raise CsvError(
            f"{path}, line {line}, column y: {cell!r} is no number such as 1234.5. Leave a missing day empty."
        ) from error
    if not math.isfinite(value):
        raise CsvError(f"{path}, line {line}, column y: {cell!r} is not finite. Leave a missing day empty.")
    return value
