"""The catalogue of raw tables, read from the sources of the dbt project."""

import difflib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pyarrow as pa

from serverless_assets.errors import UserError
from serverless_assets.ingestion.raw_table import FRESH, TIMESTAMP, TYPES, DatedBy, RawTable
from serverless_assets.ingestion.rest_endpoint import RestEndpoint, read_endpoint

# What `config.meta` of an entry says to ingestion. Other tools have mappings there, such as `dagster: {...}`.
META_KEYS = (
    "key", "event_time", "parent", "path", "rest", "grain", "lookback", "updated_at", "deleted", "optional",
    "clustered_by", "longest_text",
)  # fmt: skip
LONGEST_LOOKBACK = 120
GRAINS = ("month", "day", "none")


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
    entries: dict[str, _Entry] = {}
    for entry in map(_Entry, manifest["sources"].values()):
        entry.check_names()
        if not is_raw_table(entry.source):
            continue
        if any(entry.name.lower() == name.lower() for name in entries):
            raise entry.error("has the name of another raw table. Rename one of them.")
        if schema is not None and entry.source["schema"].lower() != schema.lower():
            raise entry.error(
                f"is in the schema {entry.source['schema']!r}, and raw tables are loaded into {schema!r}, "
                'that of DBT_SCHEMA. Give it the schema "{{ target.schema }}", or remove its `key` if '
                "another tool loads it."
            )
        entries[entry.name] = entry
    tables, waiting = dict[str, RawTable](), list(entries.values())
    while waiting:
        # A parent is read before the tables that it dates, wherever they are declared.
        ready = [entry for entry in waiting if entry.parent_name not in {other.name for other in waiting}]
        if not ready:
            raise waiting[0].error("takes its event time from itself, by way of `parent`.")
        for entry in ready:
            tables[entry.name] = entry.table(tables)
        waiting = [entry for entry in waiting if entry not in ready]
    return tuple(tables[name] for name in entries)


def is_raw_table(source: Mapping[str, Any]) -> bool:
    """Return whether ingestion loads a source of the manifest."""
    return "key" in source["config"].get("meta", {})


class _Entry:
    """A source of the manifest, read option by option; the first that makes no sense is refused."""

    def __init__(self, source: Mapping[str, Any]) -> None:
        self.source, self.name = source, str(source["identifier"])
        self.meta: Mapping[str, Any] = source["config"].get("meta", {})
        self.columns: dict[str, pa.DataType] = {}
        parent = self.meta.get("parent")
        parent_name = parent.get("table") if isinstance(parent, dict) else None
        self.parent_name = parent_name if isinstance(parent_name, str) else None

    def error(self, problem: str) -> CatalogueError:
        entry = f"{self.source['source_name']}.{self.source['name']}"
        return CatalogueError(f"{self.source['original_file_path']}: the source {entry} {problem}")

    def check_names(self) -> None:
        """Refuse an entry of which only the `key` is missing, and misspelt names."""
        if not is_raw_table(self.source):
            for name in META_KEYS:
                if name in self.meta:
                    raise self.error(
                        f"has `{name}` and no `key`. Add `key: [COLUMN]`, which identifies a row."
                    )
            return
        for name, value in self.meta.items():
            likely = difflib.get_close_matches(str(name), META_KEYS, 1, 0.8)
            if name not in META_KEYS and (likely or not isinstance(value, dict)):
                raise self.error(
                    f"has an unknown key {name!r} under config.meta: expected one of {', '.join(META_KEYS)}, "
                    "or a mapping of another tool."
                )

    def table(self, tables: Mapping[str, RawTable]) -> RawTable:
        """Return the raw table, given those that are read already, its parent among them."""
        self._read_columns()
        key = self._column_names("key")
        if not key:
            raise self.error("has an empty `key`. Name the columns that identify a row.")
        event_time = self._column("event_time")
        if event_time is not None and self.columns[event_time] != TIMESTAMP:
            raise self.error(f"has the event_time {event_time!r}, whose data_type is not timestamp.")
        dated_by = self._parent(tables) if "parent" in self.meta else None
        if dated_by:
            # The parent's rows give it, not the source.
            del self.columns[str(event_time)]
        updated_at, deleted = self._changes(dated_by)
        grain = self._grain(dated_by)
        return RawTable(
            name=self.name,
            description=self.source["description"].strip(),
            columns=self.columns,
            key=key,
            event_time=event_time,
            dated_by=dated_by,
            clustered_by=self._column_names("clustered_by"),
            longest_text=self._longest_text(),
            path=self._path(),
            optional=self._optional(dated_by),
            grain=grain,
            lookback=self._lookback(dated_by, grain),
            updated_at=updated_at,
            deleted=deleted,
            rest=self._rest() if "rest" in self.meta else None,
            fresh=self._fresh(),
        )

    def _read_columns(self) -> None:
        for name, column in self.source["columns"].items():
            kind = str(column["data_type"] or "")
            if kind.lower() not in TYPES:
                given = f"the data_type {kind!r}" if kind else "no data_type"
                raise self.error(f"has a column {name!r} of {given}: expected one of {', '.join(TYPES)}.")
            self.columns[name] = TYPES[kind.lower()]
        if not self.columns:
            raise self.error("has no columns. List each with its name, data_type and description.")

    def _column(self, option: str) -> str | None:
        name = self.meta.get(option)
        return None if name is None else self._known_column(option, name)

    def _column_names(self, option: str) -> tuple[str, ...]:
        value = self.meta.get(option, [])
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list):
            raise self.error(f"has the {option} {value!r}: expected a column, or a list of columns.")
        return tuple(self._known_column(option, name) for name in names)

    def _known_column(self, option: str, name: object) -> str:
        if not isinstance(name, str) or name not in self.columns:
            columns = ", ".join(self.columns)
            raise self.error(f"has the {option} {name!r}, which is not one of its columns: {columns}.")
        return name

    def _parent(self, tables: Mapping[str, RawTable]) -> DatedBy:
        parent, event_time = self.meta["parent"], self.meta.get("event_time")
        if not isinstance(parent, dict) or set(parent) != {"table", "column"}:
            raise self.error(f"has the parent {parent!r}: expected {{table: RAW_TABLE, column: COLUMN}}.")
        if self.parent_name is None or self.parent_name not in tables:
            declared = ", ".join(sorted(tables)) or "none"
            raise self.error(
                f"has the parent {parent['table']!r}, which is no raw table. There are: {declared}."
            )
        table, column = tables[self.parent_name], self._known_column("parent", parent["column"])
        if not event_time or table.event_time != event_time:
            raise self.error(
                f"has a parent, so its event_time must be that of {table.name}: {table.event_time!r}, "
                f"not {event_time!r}."
            )
        if table.updated_at:
            raise self.error(
                f"has the parent {table.name}, of which only changes are loaded, as it has `updated_at`. "
                "Have the source serve the event time, and remove `parent`."
            )
        if len(table.key) != 1:
            raise self.error(
                f"has the parent {table.name}, whose key is {len(table.key)} columns: expected one."
            )
        if column == event_time or event_time in self._column_names("key"):
            raise self.error(f"uses {event_time!r} as a key, which its parent gives after keys are read.")
        return DatedBy(table, column)

    def _longest_text(self) -> Mapping[str, int]:
        sizes = self.meta.get("longest_text", {})
        if not isinstance(sizes, dict) or not all(isinstance(n, int) and n > 0 for n in sizes.values()):
            raise self.error(f"has the longest_text {sizes!r}: expected {{COLUMN: BYTES}}.")
        return {self._known_column("longest_text", name): size for name, size in sizes.items()}

    def _path(self) -> str:
        path = self.meta.get("path", "")
        if not isinstance(path, str) or "://" in path or ".." in path.split("/"):
            raise self.error(f"has the path {path!r}: expected one below the source's address.")
        return path.strip("/").removesuffix(".parquet")

    def _optional(self, dated_by: DatedBy | None) -> bool:
        # By default as its parent is, which dates its rows.
        optional = self.meta.get("optional", dated_by is not None and dated_by.parent.optional)
        if not isinstance(optional, bool):
            raise self.error(f"has the optional {optional!r}: expected true or false.")
        return optional

    def _grain(self, dated_by: DatedBy | None) -> str:
        of_parent = dated_by.parent.grain if dated_by else None
        grain = self.meta.get("grain", of_parent or GRAINS[0])
        if grain not in GRAINS:
            raise self.error(f"has the grain {grain!r}: expected one of {', '.join(GRAINS)}.")
        if grain == "day" and not self.meta.get("event_time"):
            raise self.error("has the grain 'day' and no `event_time`. Name the column that has the day.")
        if of_parent and grain != of_parent:
            raise self.error(f"has the grain {grain!r}, and its parent {of_parent!r}: expected the same.")
        return str(grain)

    def _lookback(self, dated_by: DatedBy | None, grain: str) -> int:
        of_parent = dated_by.parent.lookback if dated_by else 0
        lookback = self.meta.get("lookback", of_parent)
        if type(lookback) is not int or not 0 <= lookback <= LONGEST_LOOKBACK:
            raise self.error(
                f"has the lookback {lookback!r}: expected a number of months up to {LONGEST_LOOKBACK}."
            )
        if lookback and (not self.meta.get("event_time") or grain == "none"):
            raise self.error(
                "has a lookback, and is always loaded whole: it needs an event_time and a grain other than "
                "none."
            )
        if dated_by and lookback != of_parent:
            raise self.error(
                f"has the lookback {lookback!r}, and its parent {of_parent!r}: expected the same."
            )
        return lookback

    def _changes(self, dated_by: DatedBy | None) -> tuple[str | None, str | None]:
        """Return the columns `updated_at` and `deleted`."""
        if self.meta.get("updated_at") is None:
            if self.meta.get("deleted") is not None:
                raise self.error("has `deleted` and no `updated_at`: without it, a load replaces all rows.")
            return None, None
        if dated_by:
            raise self.error(
                "has `updated_at` and a `parent`, whose rows are not there when only changes are loaded. "
                "Have the source serve the event time, and remove `parent`."
            )
        if self.meta.get("lookback"):
            raise self.error(
                "has `updated_at` and a `lookback`: changes of all months are loaded. Remove one."
            )
        updated_at, deleted = self._column("updated_at"), self._column("deleted")
        if updated_at and self.columns[updated_at] not in (TIMESTAMP, pa.int64(), pa.string()):
            raise self.error(f"has the updated_at {updated_at!r}: expected a timestamp, bigint or string.")
        if deleted and self.columns[deleted] not in (TIMESTAMP, pa.bool_()):
            raise self.error(f"has the deleted {deleted!r}: expected a boolean or timestamp.")
        return updated_at, deleted

    def _fresh(self) -> timedelta:
        """Return the limit of dbt's own `freshness`; only that of a warning counts."""
        limits = self.source.get("freshness") or {}
        limit = limits.get("warn_after") or {}
        return timedelta(**{f"{limit['period']}s": limit["count"]}) if limit.get("count") else FRESH

    def _rest(self) -> RestEndpoint:
        try:
            endpoint = read_endpoint(self.meta["rest"])
        except ValueError as problems:
            raise self.error(f"has a `rest` that cannot be used: {problems}. See docs/rest-api.md.") from None
        if pa.binary() in self.columns.values():
            raise self.error("has a binary column, which `rest` cannot give: have it loaded as string.")
        if endpoint.url and "path" in self.meta:
            raise self.error("has both a `path` and the `url` of `rest`: expected one of them.")
        if endpoint.updated_since_param and "updated_at" not in self.meta:
            raise self.error(
                "has an `updated_since_param` under `rest` and no `updated_at`: name the column."
            )
        for name in endpoint.fields:
            self._known_column("rest.fields", name)
        return endpoint
