"""The catalogue of raw tables, read from the sources of the dbt project, and the months of a load."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NoReturn

import pyarrow as pa

from serverless_assets.errors import UserError
from serverless_assets.ingestion.column_types import LONGEST_TEXT_BYTES, TIMESTAMP, TYPES
from serverless_assets.ingestion.rest_endpoint import RestEndpoint, read_endpoint
from serverless_assets.months import next_month
from serverless_assets.warehouse import TableShape


@dataclass(frozen=True)
class Window:
    """Days from `start` up to, not including, `end`; both the first of a month."""

    start: date
    end: date

    def __str__(self) -> str:
        return f"{self.start} up to {self.end}"

    def __contains__(self, day: date | str) -> bool:
        """Whether a day, or the ISO form of one, lies in the window."""
        return self.start.isoformat() <= str(day) < self.end.isoformat()

    @classmethod
    def of_months(cls, first: date, last: date) -> "Window":
        """Return the window from the month of `first` to the month of `last`, both included."""
        return cls(first.replace(day=1), next_month(last))

    def with_lookback(self, months: int) -> "Window":
        """Return the window that begins so many months earlier."""
        month = self.start.year * 12 + self.start.month - 1 - months
        return Window(date(month // 12, month % 12 + 1, 1), self.end)

    def months(self) -> list[date]:
        """Return the first day of every month in the window."""
        months = [self.start]
        while (month := next_month(months[-1])) < self.end:
            months.append(month)
        return months


@dataclass(frozen=True)
class DatedBy:
    """A fact without a time of its own takes it from a `parent` row: `column` holds the parent's key."""

    parent: "RawTable"
    column: str


@dataclass(frozen=True)
class RawTable:
    """One table of the source: what it must hold (its contract) and how it is loaded.

    A table with `event_time` is a fact: it is partitioned by month of that column, unless its `grain` is
    none, with which it is always loaded whole. Where the source does not carry the column, `dated_by` says
    which parent's row gives it. `clustered_by` is a hint to the warehouse: columns that queries filter or
    join on. `longest_text` raises `LONGEST_TEXT_BYTES` for single columns. `path` leads from the source's
    address to the file, without `.parquet`, if that is not the table's name. A run succeeds also without an
    `optional` table. A run over months also loads the `lookback` months before them, whose rows may have
    changed since. Of a table with `updated_at`, only rows that changed since the last load are requested, and
    replace those of their keys; a row whose column `deleted` is true, or a time, is removed. With `rest`, the
    rows are those of a REST API instead of a parquet file.
    """

    name: str
    description: str
    columns: Mapping[str, pa.DataType] = field(hash=False)
    key: tuple[str, ...] = ("id",)
    event_time: str | None = None
    dated_by: DatedBy | None = None
    clustered_by: tuple[str, ...] = ()
    longest_text: Mapping[str, int] = field(default_factory=dict, hash=False)
    path: str = ""
    optional: bool = False
    grain: str = "month"
    lookback: int = 0
    updated_at: str | None = None
    deleted: str | None = None
    rest: RestEndpoint | None = field(default=None, hash=False)

    @property
    def has_months(self) -> bool:
        """Whether months are loaded each by itself."""
        return self.event_time is not None and self.grain == "month"

    @property
    def format(self) -> str:
        """What the source serves."""
        return self.rest.format if self.rest else "parquet"

    @property
    def location(self) -> str:
        """The path of the table's file below the source's address, without `.parquet`."""
        return self.path or self.name

    @property
    def longest_values(self) -> Mapping[str, int]:
        """The columns of text and bytes that the source must serve, and how many bytes a value may have."""
        columns = [name for name, kind in self.columns.items() if kind in (pa.string(), pa.binary())]
        return {name: self.longest_text.get(name, LONGEST_TEXT_BYTES) for name in columns}

    @property
    def shape(self) -> TableShape:
        """The table as the warehouse keeps it."""
        return TableShape(
            self.name,
            self.schema,
            self.description,
            self.event_time,
            self.clustered_by,
            self.key,
            self.deleted,
        )

    @property
    def source_schema(self) -> pa.Schema:
        """The columns that the source must serve, in order."""
        return pa.schema(list(self.columns.items()))

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table in the warehouse, in order."""
        if self.dated_by is None or self.event_time is None:
            return self.source_schema
        return self.source_schema.append(pa.field(self.event_time, TIMESTAMP))


# What `config.meta` of an entry says to ingestion. Other tools have mappings there, such as `dagster: {...}`.
META_KEYS = (
    "key", "event_time", "parent", "path", "rest", "grain", "lookback", "updated_at", "deleted", "optional",
    "clustered_by", "longest_text",
)  # fmt: skip
LONGEST_LOOKBACK = 120
GRAINS = ("month", "none")


class CatalogueError(UserError):
    """An entry under `sources:` that does not describe a table; the message names the file and the entry."""


def read_catalogue(manifest: Mapping[str, Any], schema: str | None = None) -> tuple[RawTable, ...]:
    """Return the raw tables that a dbt project declares: its sources with a `key` under `config.meta`.

    Args:
        manifest: that of the dbt project.
        schema: the schema that raw tables are loaded into; None accepts any.

    Raises:
        CatalogueError: an entry does not describe a table.
    """
    tables: dict[str, RawTable] = {}
    waiting = {source["identifier"]: source for source in _entries(manifest)}
    for source in waiting.values():
        if schema is not None and source["schema"].lower() != schema.lower():
            _refuse(
                source,
                f"is in the schema {source['schema']!r}, and raw tables are loaded into {schema!r}, that of "
                'DBT_SCHEMA. Give it the schema "{{ target.schema }}", or remove its `key` if another tool '
                "loads it.",
            )
    while waiting:
        # A parent is read before the tables that it dates, wherever they are declared.
        ready = [name for name, source in waiting.items() if _parent_name(source) not in waiting]
        if not ready:
            _refuse(next(iter(waiting.values())), "takes its event time from itself, by way of `parent`.")
        for name in ready:
            tables[name] = _read_entry(waiting.pop(name), tables)
    return tuple(tables[source["identifier"]] for source in _entries(manifest))


def is_raw_table(source: Mapping[str, Any]) -> bool:
    """Return whether ingestion loads a source of the manifest."""
    return "key" in source["config"].get("meta", {})


def _entries(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the raw tables' sources; refuse those of which only the `key` is missing, or two of one name."""
    names_in_use = set[str]()
    for source in manifest["sources"].values():
        meta = source["config"].get("meta", {})
        if not is_raw_table(source):
            used = [name for name in META_KEYS if name in meta]
            if used:
                _refuse(source, f"has `{used[0]}` and no `key`. Add `key: [COLUMN]`, which identifies a row.")
            continue
        for name, value in meta.items():
            likely = difflib.get_close_matches(str(name), META_KEYS, 1, 0.8)
            if name not in META_KEYS and (likely or not isinstance(value, dict)):
                _refuse(
                    source,
                    f"has an unknown key {name!r} under config.meta: expected one of {', '.join(META_KEYS)}, "
                    "or a mapping of another tool.",
                )
        if source["identifier"].lower() in names_in_use:
            _refuse(source, "has the name of another raw table. Rename one of them.")
        names_in_use.add(source["identifier"].lower())
        yield source


def _read_entry(source: Mapping[str, Any], tables: Mapping[str, RawTable]) -> RawTable:
    meta = source["config"]["meta"]
    columns = {name: _type(source, column) for name, column in source["columns"].items()}
    if not columns:
        _refuse(source, "has no columns. List each with its name, data_type and description.")
    key = _column_names(source, "key", columns)
    if not key:
        _refuse(source, "has an empty `key`. Name the columns that identify a row.")
    event_time = meta.get("event_time")
    if event_time is not None:
        _refuse_unknown_column(source, "event_time", event_time, columns)
        if columns[event_time] != TIMESTAMP:
            _refuse(source, f"has the event_time {event_time!r}, whose data_type is not timestamp.")
    dated_by = _parent(source, columns, tables)
    if dated_by:
        # The parent's rows give it, not the source.
        del columns[str(event_time)]
    longest_text = meta.get("longest_text", {})
    if not isinstance(longest_text, dict) or not all(
        isinstance(size, int) and size > 0 for size in longest_text.values()
    ):
        _refuse(source, f"has the longest_text {longest_text!r}: expected {{COLUMN: BYTES}}.")
    for name in longest_text:
        _refuse_unknown_column(source, "longest_text", name, columns)
    return RawTable(
        source["identifier"],
        source["description"].strip(),
        columns,
        key,
        event_time,
        dated_by,
        _column_names(source, "clustered_by", columns),
        longest_text,
        _path(source),
        _optional(source, dated_by),
        _grain(source, dated_by),
        _lookback(source, dated_by),
        *_changes(source, columns, dated_by),
        _rest(source, columns),
    )


def _parent_name(source: Mapping[str, Any]) -> Any:
    parent = source["config"]["meta"].get("parent")
    name = parent.get("table") if isinstance(parent, dict) else None
    return name if isinstance(name, str) else None


def _parent(
    source: Mapping[str, Any], columns: Mapping[str, pa.DataType], tables: Mapping[str, RawTable]
) -> DatedBy | None:
    meta = source["config"]["meta"]
    if "parent" not in meta:
        return None
    parent, name = meta["parent"], _parent_name(source)
    if not isinstance(parent, dict) or set(parent) != {"table", "column"}:
        _refuse(source, f"has the parent {parent!r}: expected {{table: RAW_TABLE, column: COLUMN}}.")
    if name not in tables:
        declared = ", ".join(sorted(tables)) or "none"
        _refuse(source, f"has the parent {parent['table']!r}, which is no raw table. There are: {declared}.")
    _refuse_unknown_column(source, "parent", parent["column"], columns)
    table = tables[name]
    if not meta.get("event_time") or table.event_time != meta["event_time"]:
        _refuse(
            source,
            f"has a parent, so its event_time must be that of {name}: {table.event_time!r}, "
            f"not {meta.get('event_time')!r}.",
        )
    if table.updated_at:
        _refuse(
            source,
            f"has the parent {name}, of which only changes are loaded, as it has `updated_at`. "
            "Have the source serve the event time, and remove `parent`.",
        )
    if len(table.key) != 1:
        _refuse(source, f"has the parent {name}, whose key is {len(table.key)} columns: expected one.")
    if parent["column"] == meta["event_time"] or meta["event_time"] in meta["key"]:
        _refuse(source, f"uses {meta['event_time']!r} as a key, which its parent gives after keys are read.")
    return DatedBy(table, parent["column"])


def _type(source: Mapping[str, Any], column: Mapping[str, Any]) -> pa.DataType:
    name = str(column["data_type"] or "")
    if name.lower() not in TYPES:
        given = f"the data_type {name!r}" if name else "no data_type"
        _refuse(source, f"has a column {column['name']!r} of {given}: expected one of {', '.join(TYPES)}.")
    return TYPES[name.lower()]


def _column_names(
    source: Mapping[str, Any], field: str, columns: Mapping[str, pa.DataType]
) -> tuple[str, ...]:
    value = source["config"]["meta"].get(field, [])
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list):
        _refuse(source, f"has the {field} {value!r}: expected a column, or a list of columns.")
    for name in names:
        _refuse_unknown_column(source, field, name, columns)
    return tuple(names)


def _path(source: Mapping[str, Any]) -> str:
    path = source["config"]["meta"].get("path", "")
    if not isinstance(path, str) or "://" in path or ".." in path.split("/"):
        _refuse(source, f"has the path {path!r}: expected one below the source's address.")
    return path.strip("/").removesuffix(".parquet")


def _rest(source: Mapping[str, Any], columns: Mapping[str, pa.DataType]) -> RestEndpoint | None:
    meta = source["config"]["meta"]
    if "rest" not in meta:
        return None
    try:
        endpoint = read_endpoint(meta["rest"])
    except ValueError as problems:
        _refuse(source, f"has a `rest` that cannot be used: {problems}. See docs/your-own.md.")
    if pa.binary() in columns.values():
        _refuse(source, "has a binary column, which `rest` cannot give: have it loaded as string.")
    if endpoint.url and "path" in meta:
        _refuse(source, "has both a `path` and the `url` of `rest`: expected one of them.")
    if endpoint.updated_since_param and "updated_at" not in meta:
        _refuse(source, "has an `updated_since_param` under `rest` and no `updated_at`: name the column.")
    for name in endpoint.fields:
        _refuse_unknown_column(source, "rest.fields", name, columns)
    return endpoint


def _optional(source: Mapping[str, Any], dated_by: DatedBy | None) -> bool:
    # Where there are no parents, nothing dates the rows.
    optional = source["config"]["meta"].get("optional", dated_by is not None and dated_by.parent.optional)
    if not isinstance(optional, bool):
        _refuse(source, f"has the optional {optional!r}: expected true or false.")
    return optional


def _grain(source: Mapping[str, Any], dated_by: DatedBy | None) -> str:
    of_parent = dated_by.parent.grain if dated_by else None
    grain = source["config"]["meta"].get("grain", of_parent or GRAINS[0])
    if grain not in GRAINS:
        # A Dagster job has partitions of one kind, and the others of the main job are months.
        advice = " For loads smaller than a month, declare `updated_at`." if grain == "day" else ""
        _refuse(source, f"has the grain {grain!r}: expected one of {', '.join(GRAINS)}.{advice}")
    if of_parent and grain != of_parent:
        _refuse(source, f"has the grain {grain!r}, and its parent {of_parent!r}: expected the same.")
    return str(grain)


def _lookback(source: Mapping[str, Any], dated_by: DatedBy | None) -> int:
    of_parent = dated_by.parent.lookback if dated_by else 0
    lookback, grain = source["config"]["meta"].get("lookback", of_parent), _grain(source, dated_by)
    if type(lookback) is not int or not 0 <= lookback <= LONGEST_LOOKBACK:
        _refuse(
            source, f"has the lookback {lookback!r}: expected a number of months up to {LONGEST_LOOKBACK}."
        )
    if lookback and (not source["config"]["meta"].get("event_time") or grain != "month"):
        _refuse(
            source, "has a lookback, and is always loaded whole: it needs an event_time and the grain month."
        )
    if dated_by and lookback != of_parent:
        _refuse(source, f"has the lookback {lookback!r}, and its parent {of_parent!r}: expected the same.")
    return lookback


def _changes(
    source: Mapping[str, Any], columns: Mapping[str, pa.DataType], dated_by: DatedBy | None
) -> tuple[str | None, str | None]:
    """Return the columns `updated_at` and `deleted` of an entry."""
    meta = source["config"]["meta"]
    updated_at, deleted = meta.get("updated_at"), meta.get("deleted")
    if deleted is not None and updated_at is None:
        _refuse(source, "has `deleted` and no `updated_at`: without it, a load replaces all rows.")
    if updated_at is None:
        return None, None
    if dated_by:
        _refuse(
            source,
            "has `updated_at` and a `parent`, whose rows are not there when only changes are loaded. "
            "Have the source serve the event time, and remove `parent`.",
        )
    if meta.get("lookback"):
        _refuse(source, "has `updated_at` and a `lookback`: changes of all months are loaded. Remove one.")
    _refuse_unknown_column(source, "updated_at", updated_at, columns)
    if columns[updated_at] not in (TIMESTAMP, pa.int64(), pa.string()):
        _refuse(source, f"has the updated_at {updated_at!r}: expected a timestamp, bigint or string.")
    if deleted is not None:
        _refuse_unknown_column(source, "deleted", deleted, columns)
        if columns[deleted] not in (TIMESTAMP, pa.bool_()):
            _refuse(source, f"has the deleted {deleted!r}: expected a boolean or timestamp.")
    return updated_at, deleted


def _refuse_unknown_column(
    source: Mapping[str, Any], field: str, name: object, columns: Mapping[str, pa.DataType]
) -> None:
    if not isinstance(name, str) or name not in columns:
        _refuse(source, f"has the {field} {name!r}, which is not one of its columns: {', '.join(columns)}.")


def _refuse(source: Mapping[str, Any], problem: str) -> NoReturn:
    entry = f"{source['source_name']}.{source['name']}"
    raise CatalogueError(f"{source['original_file_path']}: the source {entry} {problem}")
