"""Run dbt in this process, and hand over its events while it works.

Measured on two cores: a ten-model build costs 9-12 s through `DbtCliResource`, which starts two dbt
processes, and 1-2 s here once dbt is imported. The events are dbt's own, so that dagster-dbt turns
them into the same materializations and checks; a run has a process of its own, which is what keeps
dbt's global state apart.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from serverless_assets.errors import ToldError
from serverless_assets.warehouse import Work

Event = dict[str, Any]

SECONDS_BETWEEN_LOOKS = 0.5
RESULTS = ("LogModelResult", "LogSeedResult", "LogSnapshotResult", "LogTestResult")


class DbtError(ToldError):
    """dbt could not do what it was asked to; the message is dbt's."""

    def __init__(self, message: str) -> None:
        super().__init__(f"dbt: {message}")


def invoke(
    arguments: Sequence[str],
    project_dir: Path,
    target: Path,
    variables: Mapping[str, str],
    parsed: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> str | None:
    """Run a dbt command to its end.

    `parsed` is a partial parse of the project from which to start; `on_event` gets every event as a
    dictionary of `info` and `data`.

    Returns:
        None if dbt succeeded, else its error, or its list of failures.
    """
    # Importing dbt takes two seconds, which the UI and every other command should not pay.
    from dbt.cli.main import dbtRunner
    from google.protobuf.json_format import MessageToDict

    def receive(message: Any) -> None:
        on_event(MessageToDict(message, preserving_proto_field_name=True, use_integers_for_enums=False))

    with _environment(variables), _released_file():
        result = dbtRunner(callbacks=[receive]).invoke(
            [
                *("--quiet", "--log-level", "none", "--no-use-colors", "--no-send-anonymous-usage-stats"),
                *arguments,
                *("--project-dir", str(project_dir), "--profiles-dir", str(project_dir)),
                *("--target-path", str(target), "--log-path", str(target)),
                *(("--partial-parse-file-path", str(parsed)) if parsed else ()),
            ]
        )
    if result.success:
        return None
    if result.exception:
        return str(result.exception).strip()
    failed = [
        f"{node.node.name}: {_in_a_line(node.message or str(node.status))}"
        for node in getattr(result.result, "results", [])
        if node.status in ("error", "fail", "runtime error")
    ]
    return "; ".join(failed) or "dbt failed"


def stream(
    arguments: Sequence[str],
    project_dir: Path,
    target: Path,
    variables: Mapping[str, str],
    parsed: Path | None = None,
) -> Generator[Event, None, None]:
    """Run a dbt command and yield its events as they happen.

    Raises:
        DbtError: dbt failed; after the last event.
    """
    events: SimpleQueue[Event | None] = SimpleQueue()
    failures: list[str] = []

    def work() -> None:
        try:
            failed = invoke(arguments, project_dir, target, variables, parsed, events.put)
            failures.extend([failed] if failed else [])
        except BaseException as error:
            failures.append(repr(error))
        finally:
            events.put(None)

    worker = Thread(target=work, name="dbt")
    worker.start()
    try:
        while (event := events.get()) is not None:
            yield event
    except BaseException:
        # Whoever asked is gone, by a cancelled run, say.
        _stop(worker)
        raise
    finally:
        worker.join()
    if failures:
        raise DbtError(failures[0])


def _stop(worker: Thread) -> None:
    """Have dbt stop as it does on Ctrl-C. It takes notice between two queries: those under way are ended."""
    from dbt.adapters.factory import FACTORY

    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(worker.ident or 0), ctypes.py_object(KeyboardInterrupt)
    )
    while worker.is_alive():
        adapters: list[Any] = list(FACTORY.adapters.values())
        for adapter in adapters:
            # A connection may close by itself meanwhile. Whatever else fails, fails for dbt as well.
            with suppress(Exception):
                adapter.cancel_open_connections()
        worker.join(SECONDS_BETWEEN_LOOKS)


def with_results(events: Iterable[Event]) -> Iterator[Event]:
    """The events, with each node's full result in the event that tells people of it.

    dbt tells of a result first, and says what it took in an event of its own right after.
    """
    held: dict[str, Event] = {}
    for event in events:
        node = event["data"].get("node_info", {}).get("unique_id", "")
        if event["info"]["name"] in RESULTS:
            held[node] = event
            continue
        if event["info"]["name"] == "NodeFinished" and node in held:
            result = held.pop(node)
            result["data"]["run_result"] = event["data"].get("run_result", {})
            yield result
        yield event
    yield from held.values()


def work(event: Event) -> Work:
    """What the warehouse did for the node whose result an event holds, where its adapter says so."""
    response = event["data"].get("run_result", {}).get("adapter_response", {})
    if not response.get("job_id"):
        return Work()
    # Numbers come as floats: an event passes through JSON's kind of number.
    figures = (int(response.get(name) or 0) for name in ("bytes_processed", "bytes_billed", "slot_ms"))
    return Work((str(response["job_id"]),), *figures)


def _in_a_line(message: str) -> str:
    """dbt's kind of error and the warehouse's first words on it; the log has the rest."""
    return " ".join(line.strip() for line in message.strip().splitlines()[:2])


@contextmanager
def _released_file() -> Iterator[None]:
    try:
        yield
    finally:
        # dbt-duckdb keeps the file open until its process ends, which here is not the end of dbt.
        duckdb_adapter = sys.modules.get("dbt.adapters.duckdb.connections")
        if duckdb_adapter:
            duckdb_adapter.DuckDBConnectionManager.close_all_connections()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
