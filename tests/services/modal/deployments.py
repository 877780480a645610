"""What was deployed: apps and functions, by environment, and the files that came with them."""

import hashlib
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from aiohttp import web
from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

IMAGE_BUILDER_VERSION = "2026.10"
DEFAULT_ENVIRONMENT = "main"


def new_id(prefix: str) -> str:
    """An object id. The client reads the type off the prefix, so there is one dash only."""
    return f"{prefix}-{secrets.token_hex(11)}"


def derived_id(prefix: str, content: bytes) -> str:
    """The same id for the same content."""
    return f"{prefix}-{hashlib.sha256(content).hexdigest()[:22]}"


def not_found(message: str) -> GRPCError:
    return GRPCError(Status.NOT_FOUND, message)


@dataclass(eq=False)
class App:
    id: str
    name: str
    environment: str
    functions: dict[str, "Function"] = field(default_factory=dict)

    def layout(self) -> api_pb2.AppLayout:
        objects = {
            dependency.object_id: api_pb2.Object(object_id=dependency.object_id)
            for function in self.functions.values()
            for dependency in function.definition.object_dependencies
        }
        for function in self.functions.values():
            metadata = function.handle_metadata()
            objects[function.id] = api_pb2.Object(object_id=function.id, function_handle_metadata=metadata)
        function_ids = {name: function.id for name, function in self.functions.items()}
        return api_pb2.AppLayout(function_ids=function_ids, objects=objects.values())


@dataclass(eq=False)
class Function:
    """A function, or one with other options by the id that a call names: `base_id` is that of the former."""

    id: str
    name: str
    app: App
    definition: api_pb2.Function
    base_id: str

    def handle_metadata(self) -> api_pb2.FunctionHandleMetadata:
        return api_pb2.FunctionHandleMetadata(
            app_id=self.app.id,
            base_function_id=self.base_id,
            definition_id=derived_id("de", self.definition.SerializeToString(deterministic=True)),
            function_name=self.name,
            function_type=self.definition.function_type,
            function_schema=self.definition.function_schema,
            supported_input_formats=self.definition.supported_input_formats,
            supported_output_formats=self.definition.supported_output_formats,
        )

    def data(self) -> api_pb2.FunctionData:
        ranked = api_pb2.FunctionData.RankedFunction(rank=0, function=self.definition)
        return api_pb2.FunctionData(
            module_name=self.definition.module_name,
            function_name=self.definition.function_name,
            function_type=self.definition.function_type,
            timeout_secs=self.definition.timeout_secs,
            ranked_functions=[ranked],
        )


class Deployments:
    """The RPCs of a deploy and of lookups by name."""

    def __init__(self, environments: Iterable[str], url: str) -> None:
        self._environments = {DEFAULT_ENVIRONMENT, *environments}
        self._url = url
        self._apps: dict[str, App] = {}
        self._deployed: dict[tuple[str, str], App] = {}
        self._functions: dict[str, Function] = {}

    def _environment(self, name: str) -> str:
        name = name or DEFAULT_ENVIRONMENT
        if name not in self._environments:
            raise not_found(f"Environment '{name}' not found")
        return name

    def function(self, function_id: str) -> Function:
        if function_id not in self._functions:
            raise not_found(f"Function '{function_id}' not found")
        return self._functions[function_id]

    async def ClientHello(self, request: Empty) -> api_pb2.ClientHelloResponse:
        return api_pb2.ClientHelloResponse(image_builder_version=IMAGE_BUILDER_VERSION)

    async def EnvironmentGetOrCreate(
        self, request: api_pb2.EnvironmentGetOrCreateRequest
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        name = self._environment(request.deployment_name)
        settings = api_pb2.EnvironmentSettings(image_builder_version=IMAGE_BUILDER_VERSION)
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id=derived_id("en", name.encode()),
            metadata=api_pb2.EnvironmentMetadata(name=name, settings=settings),
        )

    async def AppGetByDeploymentName(
        self, request: api_pb2.AppGetByDeploymentNameRequest
    ) -> api_pb2.AppGetByDeploymentNameResponse:
        environment = self._environment(request.environment_name)
        app = self._deployed.get((environment, request.name))
        return api_pb2.AppGetByDeploymentNameResponse(
            app_id=app.id if app else "", environment_name=environment
        )

    async def AppCreate(self, request: api_pb2.AppCreateRequest) -> api_pb2.AppCreateResponse:
        app = App(new_id("ap"), request.description, self._environment(request.environment_name))
        self._apps[app.id] = app
        page = f"{self._url}/apps/{app.id}"
        return api_pb2.AppCreateResponse(app_id=app.id, app_page_url=page, app_logs_url=f"{page}/logs")

    async def AppGetLayout(self, request: api_pb2.AppGetLayoutRequest) -> api_pb2.AppGetLayoutResponse:
        return api_pb2.AppGetLayoutResponse(app_layout=self._apps[request.app_id].layout())

    async def AppHeartbeat(self, request: api_pb2.AppHeartbeatRequest) -> Empty:
        return Empty()

    async def AppClientDisconnect(self, request: api_pb2.AppClientDisconnectRequest) -> Empty:
        return Empty()

    async def AppPublish(self, request: api_pb2.AppPublishRequest) -> api_pb2.AppPublishResponse:
        app = self._apps[request.app_id]
        app.functions = {name: self._functions[id] for name, id in request.function_ids.items()}
        if request.app_state == api_pb2.APP_STATE_DEPLOYED:
            app.name = request.name
            self._deployed[app.environment, app.name] = app
        return api_pb2.AppPublishResponse(url=f"{self._url}/apps/{app.id}")

    async def FunctionPrecreate(
        self, request: api_pb2.FunctionPrecreateRequest
    ) -> api_pb2.FunctionPrecreateResponse:
        id = request.existing_function_id or new_id("fu")
        if id not in self._functions:
            definition = api_pb2.Function(
                function_type=request.function_type,
                function_schema=request.function_schema,
                supported_input_formats=request.supported_input_formats,
                supported_output_formats=request.supported_output_formats,
            )
            app = self._apps[request.app_id]
            self._functions[id] = Function(id, request.function_name, app, definition, id)
        return api_pb2.FunctionPrecreateResponse(
            function_id=id, handle_metadata=self._functions[id].handle_metadata()
        )

    async def FunctionCreate(self, request: api_pb2.FunctionCreateRequest) -> api_pb2.FunctionCreateResponse:
        function = self.function(request.existing_function_id)
        function.definition = request.function
        return api_pb2.FunctionCreateResponse(
            function_id=function.id,
            function=request.function,
            function_data=function.data(),
            handle_metadata=function.handle_metadata(),
        )

    async def FunctionGet(self, request: api_pb2.FunctionGetRequest) -> api_pb2.FunctionGetResponse:
        environment = self._environment(request.environment_name)
        app = self._deployed.get((environment, request.app_name))
        if app is None:
            raise not_found(f"App '{request.app_name}' not found in environment '{environment}'")
        if request.object_tag not in app.functions:
            raise not_found(f"Function '{request.object_tag}' not found in App '{request.app_name}'")
        function = app.functions[request.object_tag]
        return api_pb2.FunctionGetResponse(
            function_id=function.id, handle_metadata=function.handle_metadata(), function=function.data()
        )

    async def FunctionBindParams(
        self, request: api_pb2.FunctionBindParamsRequest
    ) -> api_pb2.FunctionBindParamsResponse:
        """with_options(): the definition with the options in place of what they name."""
        base, options = self.function(request.function_id), request.function_options
        definition = api_pb2.Function()
        definition.CopyFrom(base.definition)
        definition.resources.MergeFrom(options.resources)
        definition.scheduler_placement.MergeFrom(options.scheduler_placement)
        if options.HasField("timeout_secs"):
            definition.timeout_secs = options.timeout_secs
        id = derived_id("fu", request.SerializeToString(deterministic=True))
        function = self._functions[id] = Function(id, base.name, base.app, definition, base.base_id)
        return api_pb2.FunctionBindParamsResponse(
            bound_function_id=id, handle_metadata=function.handle_metadata()
        )


class Files:
    """Local files that came with a deploy, and payloads that are too large for a message.

    A container runs what was uploaded, never the working tree: an edit after a deploy must not reach it. An
    image is built at once: a container's packages are those of the interpreter that runs the server.
    """

    def __init__(self, directory: Path, url: str) -> None:
        self._url = url
        self._blobs, self._sources, self._trees = (directory / name for name in ("blobs", "files", "trees"))
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._sources.mkdir(exist_ok=True)
        self._mounts: dict[str, list[api_pb2.MountFile]] = {}

    def tree(self, mount_ids: Iterable[str]) -> Path:
        """The folder that has all files of the mounts, written once per content."""
        mounted = sorted((file.filename, file.sha256_hex) for id in mount_ids for file in self._mounts[id])
        tree = self._trees / hashlib.sha256(repr(mounted).encode()).hexdigest()[:16]
        if not tree.exists():
            for name, content in mounted:
                path = tree.joinpath(*PurePosixPath(name).parts[1:])
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._sources / content, path)
            (tree / "root").mkdir(parents=True, exist_ok=True)
        return tree / "root"

    async def MountBatchedCheckExistence(
        self, request: api_pb2.MountBatchedCheckExistenceRequest
    ) -> api_pb2.MountBatchedCheckExistenceResponse:
        missing = [digest for digest in request.sha256_hex_hashes if not (self._sources / digest).exists()]
        return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    async def MountPutFile(self, request: api_pb2.MountPutFileRequest) -> api_pb2.MountPutFileResponse:
        blob = request.data_blob_id
        content = (self._blobs / blob).read_bytes() if blob else request.data
        digest = hashlib.sha256(content).hexdigest()
        (self._sources / digest).write_bytes(content)
        return api_pb2.MountPutFileResponse(exists=digest == request.sha256_hex)

    async def MountGetOrCreate(
        self, request: api_pb2.MountGetOrCreateRequest
    ) -> api_pb2.MountGetOrCreateResponse:
        # The client's own package is a mount that Modal deploys; a container has it from its interpreter.
        files = sorted(request.files, key=lambda file: file.filename)
        content = request.deployment_name.encode() or b"".join(file.SerializeToString() for file in files)
        mount_id = derived_id("mo", content)
        self._mounts[mount_id] = files
        checksum = hashlib.sha256(content).hexdigest()
        return api_pb2.MountGetOrCreateResponse(
            mount_id=mount_id,
            handle_metadata=api_pb2.MountHandleMetadata(content_checksum_sha256_hex=checksum),
        )

    async def ImageGetOrCreate(
        self, request: api_pb2.ImageGetOrCreateRequest
    ) -> api_pb2.ImageGetOrCreateResponse:
        return api_pb2.ImageGetOrCreateResponse(
            image_id=derived_id("im", request.image.SerializeToString(deterministic=True)),
            result=api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS),
            metadata=api_pb2.ImageMetadata(image_builder_version=IMAGE_BUILDER_VERSION),
        )

    async def BlobCreate(self, request: api_pb2.BlobCreateRequest) -> api_pb2.BlobCreateResponse:
        blob_id = new_id("bl")
        url = f"{self._url}/blobs/{blob_id}"
        urls = api_pb2.UploadUrlList(items=[url])
        return api_pb2.BlobCreateResponse(
            blob_id=blob_id, blob_ids=[blob_id], upload_url=url, upload_urls=urls
        )

    async def BlobGet(self, request: api_pb2.BlobGetRequest) -> api_pb2.BlobGetResponse:
        return api_pb2.BlobGetResponse(download_url=f"{self._url}/blobs/{request.blob_id}")

    def routes(self) -> list[web.RouteDef]:
        """An object store over HTTP, as the client expects S3 to be: one PUT a blob, whatever the size."""
        return [web.put("/blobs/{id}", self._put), web.get("/blobs/{id}", self._get)]

    async def _put(self, request: web.Request) -> web.Response:
        content = await request.read()
        (self._blobs / request.match_info["id"]).write_bytes(content)
        # The client compares this with the checksum of what it sent.
        return web.Response(headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})

    async def _get(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(self._blobs / request.match_info["id"])
