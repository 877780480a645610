"""The server: Modal's gRPC service on one loopback port; blobs and inspection over HTTP on another."""

import inspect
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpclib.server
from aiohttp import web
from grpclib import GRPCError, Status
from grpclib.const import Handler
from modal_proto import api_grpc, api_pb2

from tests.services.modal.blobs import Blobs
from tests.services.modal.call_rpcs import CallRPCs, calling_task
from tests.services.modal.calls import Calls, Settings
from tests.services.modal.deploy_rpcs import DeployRPCs
from tests.services.modal.inspection import Inspection
from tests.services.modal.logs import Logs
from tests.services.modal.sources import Sources
from tests.services.modal.state import Deployments

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Options:
    state_dir: Path
    port: int
    token: tuple[str, str]
    environments: tuple[str, ...]
    reschedule_oom: bool


class Service:
    """Finds the method for an RPC among the parts, and lets in who may come in."""

    def __init__(self, parts: Iterable[object], token: tuple[str, str], calls: Calls) -> None:
        self._parts = tuple(parts)
        self._token = token
        self._calls = calls
        self.unimplemented: set[str] = set()

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
                self.unimplemented.add(name)
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
            task_id = metadata.get("x-modal-task-id", "")
            allowed = self._calls.of_container(task_id) is not None
            calling_task.set(task_id)
        else:
            given = (metadata.get("x-modal-token-id"), metadata.get("x-modal-token-secret"))
            allowed = given == self._token
        if not allowed:
            raise GRPCError(Status.UNAUTHENTICATED, "Token validation failed")


def _bound_socket(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    return listener


def _url(listener: socket.socket) -> str:
    return f"http://{HOST}:{listener.getsockname()[1]}"


@asynccontextmanager
async def running(options: Options) -> AsyncIterator[tuple[str, str]]:
    """Serve; gives the URLs of gRPC and of HTTP."""
    grpc_socket, http_socket = _bound_socket(options.port), _bound_socket(0)
    deployments = Deployments(options.environments)
    blobs = Blobs(options.state_dir / "blobs", _url(http_socket))
    sources = Sources(options.state_dir / "sources", blobs)
    logs = Logs()
    settings = Settings(_url(grpc_socket), options.state_dir / "containers", options.reschedule_oom)
    calls = Calls(settings, sources, logs)
    parts = (
        DeployRPCs(deployments, _url(http_socket)),
        sources,
        blobs,
        logs,
        CallRPCs(deployments, calls, blobs),
    )
    service = Service(parts, options.token, calls)

    http = web.Application()
    http.add_routes(
        [*blobs.routes(), *Inspection(deployments, sources, calls, service.unimplemented).routes()]
    )
    runner = web.AppRunner(http, access_log=None, shutdown_timeout=0)
    grpc = grpclib.server.Server([service])
    await runner.setup()
    try:
        await web.SockSite(runner, http_socket).start()
        await grpc.start(sock=grpc_socket)
        yield _url(grpc_socket), _url(http_socket)
    finally:
        await calls.close()
        grpc.close()
        await grpc.wait_closed()
        await runner.cleanup()
