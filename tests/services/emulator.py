"""bqemulator, with what BigQuery documents and it lacks: run with the Python of its own venv.

- `create or replace table ... clone` replaces a table that there is, in one step, and takes options.
- The options `description` and `labels` of a view, of a clone and of `alter table` are kept.
- `tables.get` tells the query of a view, and `tables.delete` deletes one.
- `tables.get` tells the partitioning and clustering of a table that a statement created.
- `tables.get` and `tables.list` say that a clone is a table; only INFORMATION_SCHEMA says CLONE.
- `tables.patch` with the header `If-Match` changes a table of that version, or none.
- `tables.get` tells the number of rows that a statement has left in a table.
- `jobs.insert` runs a job of one id once.
- A query gets its own rows while another statement runs, which shares its connection.
"""

import ast
import json
import re
import threading
from dataclasses import replace
from typing import Any

from bqemulator import cli
from bqemulator.api.routes import jobs
from bqemulator.api.routes import tables as routes
from bqemulator.catalog import ddl_sync
from bqemulator.catalog.models import Clustering, TimePartitioning
from bqemulator.domain.errors import ResourceRef, resource_already_exists, resource_not_found
from bqemulator.jobs import executor
from bqemulator.storage.engine import DuckDBEngine, _annotate_with_duckdb_types
from bqemulator.storage.sql_identifiers import quoted_table_ref
from bqemulator.versioning import clone, ddl
from fastapi import Request
from fastapi.responses import JSONResponse, Response

OPTIONS = re.compile(r"\boptions\s*\((?P<options>.*)\)\s*$", re.IGNORECASE | re.DOTALL)
ALTER = re.compile(r"\s*alter table (?P<table>\S+) set options\((?P<options>.*)\)\s*$", re.I | re.DOTALL)
QUERY = re.compile(r"\s*(?:select|with|describe|pragma)\b", re.I)
DML = re.compile(r"\b(?:merge(?: into)?|insert into|delete from|update|truncate table)\s+(`\S+`)\s", re.I)
STRING = r'"(?:[^"\\]|\\.)*"'
# Options of statements that were parsed and have not run: by project, dataset, table.
_waiting: dict[tuple[str, str, str], dict[str, Any]] = {}


def options_in(text: str) -> dict[str, Any]:
    """The description and the labels in a list of options, whose strings are JSON's."""
    found: dict[str, Any] = {}
    if match := re.search(rf"\bdescription=({STRING})", text):
        found["description"] = json.loads(match[1])
    if match := re.search(rf"\blabels=(\[(?:\({STRING}, {STRING}\)(?:, )?)*\])", text):
        found["labels"] = dict(ast.literal_eval(match[1]))
    return found


parse = ddl.VersioningDDLRouter.parse


def parse_with_options(self: Any, sql: str) -> Any:
    match = OPTIONS.search(sql) if re.search(r"\sclone\s", sql, re.IGNORECASE) else None
    parsed = parse(self, sql[: match.start()] if match else sql)
    if parsed is not None and match:
        target = (parsed.target_project, parsed.target_dataset, parsed.target_table)
        _waiting[target] = options_in(match["options"])
    return parsed


create = clone.CloneManager.create


async def create_or_replace(self: Any, *names: str) -> Any:
    target, source = names[:3], names[3:]
    catalog, before = self._ctx.catalog, self._ctx.catalog.get_table(*names[:3])
    built = catalog.get_table(*source)
    if before is None or built is None:
        meta = await create(self, *names)
    else:
        statement = f"create or replace table {quoted_table_ref(*target)} as select * from "
        now = self._ctx.clock.now()
        meta = replace_fields(
            built, project_id=target[0], dataset_id=target[1], table_id=target[2], labels={},
            description=None, creation_time=now, last_modified_time=now, etag=f'"{now.timestamp()}"',
        )  # fmt: skip
        async with self._ctx.engine.write_lock():
            self._ctx.engine.execute(statement + quoted_table_ref(*source))
            catalog.update_table(meta)
    options = _waiting.pop(target, {})
    if options:
        meta = replace_fields(meta, **options)
        catalog.update_table(meta)
    return meta


execute = DuckDBEngine.execute
# A query executes and then fetches, in a thread of its own.
connection_lock = threading.RLock()


class Fetched:
    """The rows of a query, which nothing that runs later on the connection can take from its reader."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def to_arrow_table(self) -> Any:
        return self._rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(zip(*(column.to_pylist() for column in self._rows.columns), strict=True))

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(iter(self.fetchall()), None)


def execute_alone(self: Any, statement: str, *parameters: Any) -> Any:
    with connection_lock:
        running = execute(self, statement, *parameters)
        return Fetched(running.to_arrow_table()) if QUERY.match(statement) else running


def fetch_alone(self: Any, statement: str, *parameters: Any) -> Any:
    with connection_lock:
        description = execute(self, statement, *parameters).description
        return _annotate_with_duckdb_types(self.connection.to_arrow_table(), description)


def replace_fields(meta: Any, **fields: Any) -> Any:
    return meta.model_copy(update=fields) if hasattr(meta, "model_copy") else replace(meta, **fields)


sync_view = ddl_sync.sync_created_view


def sync_view_with_options(bq_sql: str, project_id: str, ctx: Any) -> None:
    sync_view(bq_sql, project_id, ctx)
    target, body = ddl_sync._detect_plain_create_view(bq_sql)
    if target is not None and body is not None:
        head = re.split(r"\)\s*as\s", bq_sql, maxsplit=1, flags=re.IGNORECASE)[0]
        meta = ctx.catalog.get_table(*ddl_sync._split_target(target, project_id))
        ctx.catalog.update_table(replace_fields(meta, **options_in(head)))


run_body = executor._run_query_body


def layout_in(bq_sql: str) -> tuple[list[str], dict[str, Any]] | None:
    """The table that a statement creates, and how it is partitioned and clustered."""
    head = re.split(r"\boptions\s*\(|\bas\s*\(|\bas\s+(?:select|with)\b", bq_sql, maxsplit=1, flags=re.I)[0]
    match = re.search(r"\bcreate\s+(?:or\s+replace\s+)?table\s+(?P<table>[^\s(]+)", head, re.I)
    if match is None:
        return None
    by = re.search(r"\bpartition by (?:\w+_trunc\()?`?(?P<field>\w+)`?(?:,\s*(?P<unit>\w+)\))?", head, re.I)
    clustered = re.search(r"\bcluster by (?P<fields>`?\w+`?(?:\s*,\s*`?\w+`?)*)", head, re.I)
    fields = re.findall(r"\w+", clustered["fields"]) if clustered else []
    return match["table"].replace("`", "").split("."), {
        "time_partitioning": by and TimePartitioning(type=(by["unit"] or "day").upper(), field=by["field"]),
        "clustering": Clustering(fields=tuple(fields)) if fields else None,
    }


async def run_or_alter(*, project_id: str, bq_sql: str, ctx: Any, **rest: Any) -> Any:
    match = ALTER.match(bq_sql)
    if match is None:
        answer = await run_body(project_id=project_id, bq_sql=bq_sql, ctx=ctx, **rest)
        created = layout_in(bq_sql)
        if created and len(created[0]) == 3 and (meta := ctx.catalog.get_table(*created[0])):
            ctx.catalog.update_table(replace_fields(meta, **created[1]))
        for name in {tuple(table.replace("`", "").split(".")) for table in DML.findall(bq_sql)}:
            if len(name) == 3 and (meta := ctx.catalog.get_table(*name)):
                (count,) = ctx.engine.fetch_arrow(f"select count(*) as n from {quoted_table_ref(*name)}")["n"]
                ctx.catalog.update_table(replace_fields(meta, num_rows=count.as_py()))
        return answer
    meta = ctx.catalog.get_table(*match["table"].replace("`", "").split("."))
    ctx.catalog.update_table(replace_fields(meta, **options_in(match["options"])))
    return executor._EMPTY_ARROW


to_rest = routes._table_to_rest


to_list_item = routes._table_to_list_item


def as_documented(meta: Any) -> dict[str, Any]:
    view = {"view": {"query": meta.view_query, "useLegacySql": False}} if meta.view_query else {}
    return {**to_rest(meta), **type_of(meta), **view}


def item_as_documented(meta: Any) -> dict[str, Any]:
    return {**to_list_item(meta), **type_of(meta)}


def type_of(meta: Any) -> dict[str, str]:
    return {"type": "TABLE" if meta.table_type == "CLONE" else meta.table_type}


async def delete_table_or_view(project_id: str, dataset_id: str, table_id: str, ctx: routes._Ctx) -> Response:
    meta = ctx.catalog.get_table(project_id, dataset_id, table_id)
    if meta is None or not meta.view_query:
        return await routes.delete_table(project_id, dataset_id, table_id, ctx)
    async with ctx.engine.write_lock():
        ctx.engine.execute(f"drop view if exists {quoted_table_ref(project_id, dataset_id, table_id)}")
        ctx.catalog.delete_table(project_id, dataset_id, table_id)
    return Response(status_code=204)


async def patch_if_match(
    project_id: str, dataset_id: str, table_id: str, request: Request, ctx: routes._Ctx
) -> Any:
    await request.json()
    async with ctx.engine.write_lock():
        meta = ctx.catalog.get_table(project_id, dataset_id, table_id)
        if meta is None:
            raise resource_not_found(ResourceRef("table", project_id, dataset_id, table_id))
        if request.headers.get("if-match", meta.etag) != meta.etag:
            message = "Precondition check failed."
            errors = [{"reason": "conditionNotMet", "message": message, "domain": "global"}]
            return JSONResponse({"error": {"code": 412, "message": message, "errors": errors}}, 412)
        return await routes.patch_table(project_id, dataset_id, table_id, request, ctx)


async def insert_job_once(project_id: str, request: Request, ctx: jobs._Ctx, caller: jobs._Caller) -> Any:
    job_id = (await request.json()).get("jobReference", {}).get("jobId")
    if job_id and ctx.catalog.get_job(project_id, job_id):
        raise resource_already_exists(ResourceRef("job", project_id, resource_id=job_id))
    return await jobs.insert_job(project_id, request, ctx, caller)


for router, method, before, after in (
    (routes.router, "DELETE", routes.delete_table, delete_table_or_view),
    (routes.router, "PATCH", routes.patch_table, patch_if_match),
    (jobs.router, "POST", jobs.insert_job, insert_job_once),
):
    for route in [route for route in router.routes if getattr(route, "endpoint", None) is before]:
        router.routes.remove(route)
        # Its path carries the router's prefix already.
        path = route.path.removeprefix(router.prefix)
        router.add_api_route(path, after, methods=[method], response_model=None)

DuckDBEngine.execute, DuckDBEngine.fetch_arrow = execute_alone, fetch_alone
ddl.VersioningDDLRouter.parse = parse_with_options
clone.CloneManager.create = create_or_replace
executor.sync_created_view = sync_view_with_options
executor._run_query_body = run_or_alter
routes._table_to_rest = as_documented
routes._table_to_list_item = item_as_documented

if __name__ == "__main__":
    cli.main()
