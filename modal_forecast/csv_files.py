"""Series in CSV files: a history to read, a forecast to write.

By `csv`, as an error names the line, the column and the value: pyarrow.csv names the column by its number,
and of a value that it does not convert no line. A history has some thousands of lines.
"""

import csv
import io
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime, time
from pathlib import Path
from shutil import copymode
from typing import TYPE_CHECKING

import pyarrow as pa

from modal_forecast.messages import HISTORY_SCHEMA

if TYPE_CHECKING:
    from _csv import Reader

STDOUT, STDERR = 1, 2
MISSING = {"", "na", "nan", "null"}


class CsvError(ValueError):
    """A file is no history; the text names the file, the line and the column."""


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

    Readers see the old file or the new one, never a part. A symbolic link stays a link to the file that is
    replaced, and a replaced file keeps its permissions. A pipe or a device is written into. Raises OSError,
    and leaves the old files, if a text cannot be written.
    """
    written: dict[Path, Path] = {}
    try:
        for path, text in contents.items():
            if is_stream(path):
                continue
            file_path = path.resolve()
            written[file_path] = file_path.with_name(f".{file_path.name}.{os.getpid()}.tmp")
            with written[file_path].open("x", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if file_path.exists():
                copymode(file_path, written[file_path])
        for path, text in contents.items():
            if is_stream(path):
                _write_into(path, text)
        for file_path, temporary in written.items():
            temporary.replace(file_path)
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)


def is_stream(path: Path) -> bool:
    """Return whether a path is a pipe, a device, or the file that stdout or stderr goes to."""
    try:
        status = path.stat()
    except OSError:
        return False
    return not stat.S_ISREG(status.st_mode) or _own_descriptor(path) is not None


def is_stdout(path: Path) -> bool:
    """Return whether a path is where this process's stdout goes."""
    return _own_descriptor(path) == STDOUT


def _own_descriptor(path: Path) -> int | None:
    """The descriptor of stdout or stderr if a path leads to the same file."""
    for descriptor in (STDOUT, STDERR):
        with suppress(OSError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
    return None


def _write_into(path: Path, text: str) -> None:
    descriptor = _own_descriptor(path)
    try:
        # Opened anew, a file that stdout goes to would be written from its beginning by both.
        with open(path if descriptor is None else os.dup(descriptor), "wb") as stream:
            stream.write(text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


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
        for needed in ("ds", "y"):
            if header.count(needed) != 1:
                raise CsvError(
                    f"{path}, line 1: needs one column {needed}, and has {', '.join(header) or 'none'}. "
                    "Name the columns there, separated by commas."
                )
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
