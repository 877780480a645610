"""What tests see of the server, as JSON over HTTP; harness.py is the other side of it."""

from collections.abc import Iterable
from dataclasses import asdict

from aiohttp import web
from grpclib import GRPCError

from tests.services.modal.calls import Calls
from tests.services.modal.report import CallStatus
from tests.services.modal.sources import Sources
from tests.services.modal.state import Deployments


class Inspection:
    def __init__(
        self, deployments: Deployments, sources: Sources, calls: Calls, unimplemented: Iterable[str]
    ) -> None:
        self._deployments = deployments
        self._sources = sources
        self._calls = calls
        self._unimplemented = unimplemented

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/state", self._state), web.get("/calls/{id}", self._call)]

    async def _state(self, request: web.Request) -> web.Response:
        apps = list(self._deployments.apps.values())
        return web.json_response(
            {
                "deploys": sum(app.deploys for app in apps),
                "image_builds": self._sources.image_builds,
                "unimplemented": sorted(self._unimplemented),
                "apps": [
                    {
                        "name": app.name,
                        "environment": app.environment,
                        "tags": app.tags,
                        "functions": sorted(app.functions),
                        "deploys": app.deploys,
                    }
                    for app in apps
                ],
                "calls": [asdict(call.report()) for call in self._calls],
            }
        )

    async def _call(self, request: web.Request) -> web.Response:
        """The report of a call, once it has one of the statuses asked for and so many containers started."""
        try:
            call = self._calls.get(request.match_info["id"])
        except GRPCError as error:
            raise web.HTTPNotFound(text=error.message) from error
        statuses = request.query.getall("status", list(CallStatus))
        starts = int(request.query.get("containers_started", 0))
        timeout = float(request.query.get("timeout", 0))
        came = await call.wait_until(
            lambda: call.status in statuses and call.containers_started >= starts, timeout
        )
        return web.json_response(asdict(call.report()), status=200 if came else 408)
