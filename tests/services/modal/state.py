"""What has been deployed: environments, apps and functions. Nothing here knows of processes or transport."""

import hashlib
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from grpclib import GRPCError, Status
from modal_proto import api_pb2

DEFAULT_ENVIRONMENT = "main"


def new_id(prefix: str) -> str:
    """An object id. The client reads the type off the prefix, so there is one dash only."""
    return f"{prefix}-{secrets.token_hex(11)}"


def derived_id(prefix: str, *parts: bytes) -> str:
    """The same id for the same content, whatever the order of the parts."""
    digests = sorted(hashlib.sha256(part).hexdigest() for part in parts)
    return f"{prefix}-{hashlib.sha256(''.join(digests).encode()).hexdigest()[:22]}"


def not_found(message: str) -> GRPCError:
    return GRPCError(Status.NOT_FOUND, message)


@dataclass(eq=False)
class App:
    id: str
    name: str
    environment: str
    tags: dict[str, str] = field(default_factory=dict)
    functions: dict[str, "Function"] = field(default_factory=dict)
    deploys: int = 0
    stopped: bool = False

    def layout(self) -> api_pb2.AppLayout:
        dependencies = {
            dependency.object_id
            for function in self.functions.values()
            for dependency in function.definition.object_dependencies
        }
        return api_pb2.AppLayout(
            function_ids={name: function.id for name, function in self.functions.items()},
            objects=[
                *(
                    api_pb2.Object(object_id=function.id, function_handle_metadata=function.handle_metadata())
                    for function in self.functions.values()
                ),
                *(api_pb2.Object(object_id=dependency) for dependency in sorted(dependencies)),
            ],
        )


@dataclass(eq=False)
class Function:
    """A function keeps its id over deploys. A definition counts once it is published, so that a deploy that
    fails half-way changes nothing."""

    id: str
    name: str
    app: App
    definitions: dict[str, api_pb2.Function] = field(default_factory=dict)
    published: str = ""

    @property
    def definition(self) -> api_pb2.Function:
        return self.definitions[self.published]

    def handle_metadata(self, definition_id: str = "") -> api_pb2.FunctionHandleMetadata:
        definition_id = definition_id or self.published
        definition = self.definitions[definition_id]
        return api_pb2.FunctionHandleMetadata(
            app_id=self.app.id,
            base_function_id=self.id,
            definition_id=definition_id,
            function_name=self.name,
            function_type=definition.function_type,
            function_schema=definition.function_schema,
            supported_input_formats=definition.supported_input_formats,
            supported_output_formats=definition.supported_output_formats,
        )


@dataclass(frozen=True)
class Variant:
    """What a call names: a function, and what with_options() said about it."""

    id: str
    function: Function
    options: api_pb2.FunctionOptions = field(default_factory=api_pb2.FunctionOptions)

    def definition(self) -> api_pb2.Function:
        """The published definition with the options in place of what they name."""
        merged = api_pb2.Function()
        merged.CopyFrom(self.function.definition)
        merged.resources.MergeFrom(self.options.resources)
        merged.scheduler_placement.MergeFrom(self.options.scheduler_placement)
        if self.options.HasField("timeout_secs"):
            merged.timeout_secs = self.options.timeout_secs
        if self.options.HasField("retry_policy"):
            merged.retry_policy.CopyFrom(self.options.retry_policy)
        return merged


class Deployments:
    """The name spaces: environment, then app, then function."""

    def __init__(self, environments: Iterable[str] = ()) -> None:
        self.environments = {
            name: new_id("en") for name in dict.fromkeys((DEFAULT_ENVIRONMENT, *environments))
        }
        self.apps: dict[str, App] = {}
        self.functions: dict[str, Function] = {}
        self.variants: dict[str, Variant] = {}
        self._deployed: dict[tuple[str, str], App] = {}

    def environment(self, name: str) -> str:
        name = name or DEFAULT_ENVIRONMENT
        if name not in self.environments:
            raise not_found(f"Environment '{name}' not found")
        return name

    def create_environment(self, name: str) -> None:
        if name in self.environments:
            raise GRPCError(Status.ALREADY_EXISTS, f"Environment '{name}' already exists")
        self.environments[name] = new_id("en")

    def create_app(self, name: str, environment: str, tags: dict[str, str]) -> App:
        app = App(new_id("ap"), name, self.environment(environment), tags)
        self.apps[app.id] = app
        return app

    def app(self, app_id: str) -> App:
        if app_id not in self.apps:
            raise not_found(f"App '{app_id}' not found")
        return self.apps[app_id]

    def deployed_app(self, name: str, environment: str) -> App | None:
        return self._deployed.get((self.environment(environment), name))

    def precreate(self, app: App, name: str, existing_id: str) -> Function:
        existing = self.functions.get(existing_id)
        if existing is not None:
            return existing
        function = Function(new_id("fu"), name, app)
        self.functions[function.id] = function
        return function

    def publish(self, request: api_pb2.AppPublishRequest) -> float:
        """Make the layout of the request the app's; returns when, in seconds since 1970."""
        app = self.app(request.app_id)
        for function_id, definition_id in request.definition_ids.items():
            self.functions[function_id].published = definition_id
        app.functions = {name: self.functions[fid] for name, fid in request.function_ids.items()}
        app.tags = dict(request.tags) or app.tags
        if request.app_state == api_pb2.APP_STATE_DEPLOYED:
            app.name = request.name
            app.deploys += 1
            self._deployed[app.environment, app.name] = app
        return time.time()

    def stop(self, app: App) -> None:
        app.stopped = True
        if self._deployed.get((app.environment, app.name)) is app:
            del self._deployed[app.environment, app.name]

    def lookup(self, app_name: str, function_name: str, environment: str) -> Function:
        app = self.deployed_app(app_name, environment)
        if app is None:
            where = self.environment(environment)
            raise not_found(f"App '{app_name}' not found in environment '{where}'")
        if function_name not in app.functions:
            raise not_found(f"Function '{function_name}' not found in App '{app_name}'")
        return app.functions[function_name]

    def bind(self, request: api_pb2.FunctionBindParamsRequest) -> Variant:
        base = self.variant(request.function_id)
        content = request.SerializeToString(deterministic=True)
        variant = Variant(derived_id("fu", content), base.function, request.function_options)
        return self.variants.setdefault(variant.id, variant)

    def variant(self, function_id: str) -> Variant:
        if function_id in self.functions:
            return Variant(function_id, self.functions[function_id])
        if function_id not in self.variants:
            raise not_found(f"Function '{function_id}' not found")
        return self.variants[function_id]
