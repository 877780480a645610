"""The server: Modal's gRPC service on one loopback port; blobs and the reports of calls over HTTP on another.

`python -m tests.services.modal --port 0 --state-dir DIR`: it serves until it is stopped, or until the process
that started it closes its standard input.
"""

import argparse
import asyncio
import inspect
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpclib.server
from aiohttp import web
from grpclib import GRPCError, Status
from grpclib.const import Handler
from modal_proto import api_grpc, api_pb2

from tests.services.modal.calls import Calls, calling_task
from tests.services.modal.deployments import Deployments, Files
from tests.services.modal.harness import ADDRESSES, TOKEN, CallStatus

HOST = "127.0.0.1"


class Service:
    """Finds the method for an RPC among the parts, and lets in who may come in."""

    def __init__(self, deployments: Deployments, files: Files, calls: Calls) -> None:
        self._parts = (deployments, files, calls)
        self._calls = calls

    def __mapping__(self) -> dict[str, Handler]:
        # The stubs are abstract methods without end; their mapping has the types of all messages.
        names = api_grpc.ModalClientBase.__abstractmethods__
        stubs = type("Stubs", (api_grpc.ModalClientBase,), dict.fromkeys(names, Service.__call__))
        return {
            path: handler._replace(func=self._served(path.rpartition("/")[2]))
            for path, handler in stubs().__mapping__().items()
        }

    def _served(self, name: str) -> Callable[[grpclib.server.Stream[Any, Any]], Any]:
        method = next((getattr(part, name) for part in self._parts if hasattr(part, name)), None)

        async def serve(stream: grpclib.server.Stream[Any, Any]) -> None:
            if method is None:
                print(f"unimplemented: {name}", file=sys.stderr, flush=True)
                raise GRPCError(Status.UNIMPLEMENTED, f"The test server does not implement {name}")
            self._authenticate(dict(stream.metadata or {}))
            request = await stream.recv_message()
            if inspect.isasyncgenfunction(method):
                async for message in method(request):
                    await stream.send_message(message)
            else:
                await stream.send_message(await method(request))

        return serve

    def _authenticate(self, metadata: dict[str, Any]) -> None:
        """A client has the token, a container is one that this server has started."""
        if metadata.get("x-modal-client-type") == str(api_pb2.CLIENT_TYPE_CONTAINER):
            calling_task.set(metadata.get("x-modal-task-id", ""))
            allowed = self._calls.is_container(calling_task.get())
        else:
            allowed = (metadata.get("x-modal-token-id"), metadata.get("x-modal-token-secret")) == TOKEN
        if not allowed:
            raise GRPCError(Status.UNAUTHENTICATED, "Token validation failed")


def report_routes(calls: Calls) -> list[web.RouteDef]:
    """What tests see of the server, as JSON; harness.py is the other side of it."""

    async def all_calls(request: web.Request) -> web.Response:
        return web.json_response([asdict(call.report()) for call in calls.by_id.values()])

    async def one_call(request: web.Request) -> web.Response:
        """The report of a call, once it has one of the statuses asked for and so many containers started."""
        call = calls.by_id.get(request.match_info["id"])
        if call is None:
            raise web.HTTPNotFound(text="There is no such call.")
        statuses = request.query.getall("status", list(CallStatus))
        starts = int(request.query.get("containers_started", 0))
        came = await calls.wait_until(
            lambda: call.status in statuses and call.containers_started >= starts,
            float(request.query.get("timeout", 0)),
        )
        return web.json_response(asdict(call.report()), status=200 if came else 408)

    return [web.get("/calls", all_calls), web.get("/calls/{id}", one_call)]


def bound_socket(port: int) -> tuple[socket.socket, str]:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    return listener, f"http://{HOST}:{listener.getsockname()[1]}"


async def serve(port: int, state_dir: Path, environments: list[str], reschedule_oom: bool) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(sys.stdin.fileno(), stop.set)
    (grpc_socket, url), (http_socket, http_url) = bound_socket(port), bound_socket(0)
    deployments, files = Deployments(environments, http_url), Files(state_dir, http_url)
    calls = Calls(deployments, files, state_dir / "containers", url, reschedule_oom)
    http = web.Application(client_max_size=1 << 30)
    http.add_routes([*files.routes(), *report_routes(calls)])
    runner = web.AppRunner(http, access_log=None, shutdown_timeout=0)
    grpc = grpclib.server.Server([Service(deployments, files, calls)])
    await runner.setup()
    try:
        await web.SockSite(runner, http_socket).start()
        await grpc.start(sock=grpc_socket)
        addresses = {"url": url, "http_url": http_url, "pid": os.getpid()}
        (state_dir / ADDRESSES).write_text(json.dumps(addresses))
        print(f"listening on {url}", flush=True)
        await stop.wait()
        loop.remove_reader(sys.stdin.fileno())
    finally:
        await calls.close()
        grpc.close()
        await grpc.wait_closed()
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A Modal server on loopback, for tests.")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--environment", action="append", default=[], help="besides main; may be repeated")
    parser.add_argument(
        "--reschedule-oom", action="store_true", help="start a container that is out of memory again"
    )
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.state_dir.resolve(), options.environment, options.reschedule_oom))
