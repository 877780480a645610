"""python -m tests.services.modal --port 0 --state-dir DIR"""

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tests.services.modal.harness import ADDRESSES, TOKEN
from tests.services.modal.server import Options, running


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A Modal server on loopback, for tests.")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--token-id", default=TOKEN[0])
    parser.add_argument("--token-secret", default=TOKEN[1])
    parser.add_argument("--environment", action="append", default=[], help="besides main; may be repeated")
    parser.add_argument(
        "--oom",
        choices=("fail", "reschedule"),
        default="fail",
        help="what becomes of an input whose container is out of memory",
    )
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end when the process that started this one ends"
    )
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if arguments.until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    options = Options(
        state_dir=arguments.state_dir.resolve(),
        port=arguments.port,
        token=(arguments.token_id, arguments.token_secret),
        environments=tuple(arguments.environment),
        reschedule_oom=arguments.oom == "reschedule",
    )
    async with running(options) as (url, http_url):
        addresses = {"url": url, "http_url": http_url, "pid": os.getpid()}
        (options.state_dir / ADDRESSES).write_text(json.dumps(addresses))
        print(f"listening on {url}", flush=True)
        await stop.wait()
        if arguments.until_stdin_closes:
            loop.remove_reader(sys.stdin.fileno())


if __name__ == "__main__":
    asyncio.run(_serve(_arguments()))
