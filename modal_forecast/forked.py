"""Work on many series in several processes that share the memory of this one."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from modal_forecast.resources import FORKED

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

JobStats = Callable[[str, Callable[[str], None]], bytes]
SeriesLog = Callable[[str, str], None]


class SeriesFailed(RuntimeError):
    """The work on a series broke, or its process died; the text says on which, and how."""


def work_on(
    names: Sequence[str], work: JobStats, processes: int, log: SeriesLog
) -> Iterator[tuple[str, bytes]]:
    """Each name with what `work` makes of it, in the order in which they are done.

    work: gets a name and where to log. It runs in a process forked from this one if there is more than one
        process: what it needs should be loaded before.
    log: called in this process with a name and a line.

    Raises SeriesFailed, and ends the other processes.
    """
    processes = min(processes, len(names))
    if processes > 1:
        yield from _forked(names, work, processes, log)
        return
    for name in names:
        try:
            made = work(name, partial(log, name))
        except Exception as error:
            raise SeriesFailed(f"The forecast of {name!r} broke: {error!r}") from error
        yield name, made


def _forked(
    names: Sequence[str], work: JobStats, processes: int, log: SeriesLog
) -> Iterator[tuple[str, bytes]]:
    # A worker for one series does without these.
    from multiprocessing import get_context
    from multiprocessing.connection import Connection, wait
    from multiprocessing.context import ForkProcess

    fork = get_context("fork")
    children: dict[Connection, ForkProcess] = {}
    busy: dict[Connection, str] = {}
    waiting = iter(names)
    try:
        for _ in range(processes):
            ours, theirs = fork.Pipe()
            inherited = [*children, ours]
            child = fork.Process(target=_serve, args=(theirs, inherited, work), daemon=True)
            child.start()
            children[ours] = child
            FORKED.add(child.pid or 0)
            theirs.close()
            busy[ours] = next(waiting)
            ours.send(busy[ours])
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                name = busy[pipe]
                try:
                    kind, content = pipe.recv()
                except (EOFError, ConnectionError) as error:
                    children[pipe].join()
                    raise SeriesFailed(_died(name, children[pipe].exitcode)) from error
                if kind == "line":
                    log(name, content)
                    continue
                if kind == "broke":
                    raise SeriesFailed(f"The forecast of {name!r} broke: {content}")
                following = next(waiting, None)
                if following is None:
                    del busy[pipe]
                else:
                    busy[pipe] = following
                    pipe.send(following)
                yield name, content
    finally:
        for pipe, child in children.items():
            pipe.close()
            if busy:
                child.terminate()
            child.join()
            FORKED.discard(child.pid or 0)


def _died(name: str, exit_code: int | None) -> str:
    how = (
        f"by signal {-exit_code}"
        if exit_code is not None and exit_code < 0
        else f"with exit code {exit_code}"
    )
    return f"The process that forecast {name!r} died {how}. If that is 9, memory ran out: ask for more of it."


def _serve(pipe: "Connection", inherited: "list[Connection]", work: JobStats) -> None:
    """Work on what the parent sends until it closes its end, or ends."""
    # While a copy of a parent's end is open here, another process would not notice that the parent ended.
    for other in inherited:
        other.close()
    FORKED.clear()

    def log(line: str) -> None:
        pipe.send(("line", line))

    try:
        while True:
            name = pipe.recv()
            try:
                answer: tuple[str, bytes | str] = ("made", work(name, log))
            except Exception:
                answer = ("broke", traceback.format_exc())
            pipe.send(answer)
    except (EOFError, ConnectionError):
        return
