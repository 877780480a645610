"""The process that runs dbt commands for the process that started it.

It takes one `Command` after another from a socket, so that importing dbt is paid for once, and answers
each with dbt's events as dictionaries, then with a `Result`. It ends when the parent closes the socket
or dies.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from serverless_assets.transformation.dbt_internals import (
    close_duckdb,
    engine_variables,
    select_by_unique_id,
)

Event = dict[str, Any]
CountRows = Callable[[str, str, str], int]

# With each build dbt would write the manifest of the whole project again: seconds of a large one. The
# results, which the option leaves out too, are written here.
NO_JSON = "--no-write-json"
FAILED = ("error", "fail", "runtime error", "partial success")
# Prefixes of variables that change what dbt does, beside those of its command-line flags.
FLAG_PREFIXES = ("DBT_ENGINE_", "DBT_RECORDER_")
MODEL_RESULTS = ("LogModelResult", "LogSeedResult", "LogSnapshotResult")


@dataclass(frozen=True)
class Command:
    """A dbt command, the environment and folder to run it in, and whether to send its events.

    `options` are those that every command takes, and `target` is the folder that dbt writes to. `kept` are
    the unique ids of models that keep their rows under --full-refresh; `seeds` maps the ids of sources to
    those of the seeds that are their relations. `count_rows` counts the rows of a relation, given by
    database, schema and name. It runs in dbt's process, because dbt keeps other processes out of a DuckDB
    file while it works.
    """

    arguments: Sequence[str]
    options: Sequence[str]
    environ: Mapping[str, str]
    folder: str
    target: str
    count_rows: CountRows | None
    send_events: bool
    kept: Sequence[str] = ()
    seeds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """The end of a command: dbt's error, or its list of failures; None if it succeeded.

    After an exception the process is not used again: the exception, which dbt keeps, may refer to a
    connection, and while there is one the warehouse's file is open.
    """

    failure: str | None
    is_exception: bool = False


def main() -> None:
    """Run commands until the parent closes the socket."""
    # By default Python looks for garbage after every 700 objects. A project of 1,000 models is millions, none
    # of which is garbage: that took a third of the cpu.
    gc.set_threshold(200_000, 50, 50)
    # A process that a shell starts in the background, and what that starts, ignores Ctrl-C.
    signal.signal(signal.SIGINT, _interrupt)
    connection = Connection(int(sys.argv[1]))
    commands: SimpleQueue[Command] = SimpleQueue()
    Thread(target=_receive, args=(connection, commands), daemon=True).start()
    try:
        # Before there is a command: the parent may have started the process ahead of it.
        engine_variables()
        select_by_unique_id()
        while True:
            _run(commands.get(), connection)
    except KeyboardInterrupt:
        # The parent interrupts a command whose result it does not wait for.
        sys.exit(128 + signal.SIGINT)


def _interrupt(number: int, frame: object) -> None:
    # dbt prints the traceback of an interrupt, and the parent says that it was stopped.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    raise KeyboardInterrupt


def _receive(connection: Connection, commands: "SimpleQueue[Command]") -> None:
    try:
        while True:
            commands.put(connection.recv())
    except (EOFError, OSError):
        # The parent is gone, or does not want the rest. Nothing may keep the warehouse's file open then.
        os._exit(1)


def _run(command: Command, connection: Connection) -> None:
    _set_environment(command.environ)
    os.chdir(command.folder)
    from dbt.cli.main import dbtRunner
    from google.protobuf.json_format import MessageToDict

    # dbt's threads send events at the same time.
    sending = Lock()

    def send(message: Any) -> None:
        # Nine of ten events are details that nothing reads, such as each query. Of these, one is needed: what
        # a node took.
        if message.info.level == "debug" and message.info.name != "NodeFinished":
            return
        event = MessageToDict(message, preserving_proto_field_name=True, use_integers_for_enums=False)
        _add_row_count(event, command.count_rows)
        with sending:
            connection.send(event)

    try:
        manifest = _manifest(command) if command.kept or command.seeds else None
        runner = dbtRunner(manifest, callbacks=[send] if command.send_events else [])
        result = runner.invoke([*command.arguments, *command.options])
    finally:
        close_duckdb()
    answer: Any = result.result
    if NO_JSON in command.arguments and hasattr(answer, "write"):
        answer.write(os.path.join(command.target, "run_results.json"))
    connection.send(Result(_failure(result), result.exception is not None))


def _manifest(command: Command) -> Any:
    """The parsed project, with what no argument of dbt says: which models keep their rows and wait for seeds.

    None if it cannot be parsed, as the command itself will say.
    """
    from dbt.cli.main import dbtRunner

    # The result of a parse is a manifest, which dbt's types do not say.
    manifest: Any = dbtRunner().invoke(["parse", *command.options]).result
    if manifest is None:
        return None
    for id in command.kept:
        manifest.nodes[id].config.full_refresh = False
    for node in manifest.nodes.values() if command.seeds else ():
        parents = getattr(node.depends_on, "nodes", [])
        parents += [command.seeds[id] for id in parents if id in command.seeds]
    return manifest


def without_flags(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The variables, but for those that change what dbt does as it is imported."""
    return {name: value for name, value in environ.items() if not name.startswith(FLAG_PREFIXES)}


def _set_environment(environ: Mapping[str, str]) -> None:
    """Set the variables of this process, except those by which a shell sets dbt's flags: DBT_TARGET, ...

    Other variables that begin with DBT_ are for the project's own `env_var()`.
    """
    os.environ.clear()
    os.environ.update(without_flags(environ))
    for name in engine_variables():
        os.environ.pop(name, None)


def _add_row_count(event: Event, count_rows: CountRows | None) -> None:
    """Add `rows`, or `rows_error`, to the data of an event that tells of a model's success.

    To count the rows of a view, all of its query is run.
    """
    if count_rows is None or event["info"]["name"] not in MODEL_RESULTS:
        return
    node = event["data"]["node_info"]
    if event["data"]["status"].lower().startswith("error") or node.get("materialized") == "view":
        return
    try:
        relation = node["node_relation"]
        event["data"]["rows"] = count_rows(relation["database"], relation["schema"], relation["alias"])
    except Exception as error:
        # A count that fails does not fail the model.
        event["data"]["rows_error"] = str(error)


def _failure(result: Any) -> str | None:
    if result.success:
        return None
    if result.exception:
        return str(result.exception).strip() or repr(result.exception)
    failed = [
        f"{node.node.name}: {in_a_line(node.message or str(node.status))}"
        for node in getattr(result.result, "results", [])
        if node.status in FAILED
    ]
    return "; ".join(failed) or "dbt failed"


def in_a_line(message: str) -> str:
    """Return dbt's kind of error, the first line of the warehouse's, and where it is; the log has all."""
    lines = [line.strip() for line in message.strip().splitlines()]
    # Where it is, as DuckDB says it in a line of its own.
    return " ".join(lines[:2] + [line for line in lines[2:] if line.startswith("LINE ")])
