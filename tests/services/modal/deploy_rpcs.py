"""The RPCs of `modal deploy`, of lookups by name, and of environments."""

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2

from tests.services.modal.sources import IMAGE_BUILDER_VERSION
from tests.services.modal.state import DEFAULT_ENVIRONMENT, Deployments, Function, new_id, not_found

CREATE_IF_MISSING = api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING


class DeployRPCs:
    def __init__(self, deployments: Deployments, url: str) -> None:
        self._deployments = deployments
        self._url = url

    def _page(self, app_id: str) -> str:
        return f"{self._url}/apps/{app_id}"

    async def ClientHello(self, request: Empty) -> api_pb2.ClientHelloResponse:
        return api_pb2.ClientHelloResponse(image_builder_version=IMAGE_BUILDER_VERSION)

    async def EnvironmentGetOrCreate(
        self, request: api_pb2.EnvironmentGetOrCreateRequest
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        wanted, known = request.deployment_name, self._deployments.environments
        if wanted and wanted not in known and request.object_creation_type == CREATE_IF_MISSING:
            self._deployments.create_environment(wanted)
        name = self._deployments.environment(wanted)
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id=known[name],
            metadata=api_pb2.EnvironmentMetadata(
                name=name,
                settings=api_pb2.EnvironmentSettings(image_builder_version=IMAGE_BUILDER_VERSION),
            ),
        )

    async def EnvironmentCreate(self, request: api_pb2.EnvironmentCreateRequest) -> Empty:
        self._deployments.create_environment(request.name)
        return Empty()

    async def EnvironmentList(self, request: Empty) -> api_pb2.EnvironmentListResponse:
        return api_pb2.EnvironmentListResponse(
            items=[
                api_pb2.EnvironmentListItem(
                    name=name, environment_id=identity, default=name == DEFAULT_ENVIRONMENT
                )
                for name, identity in self._deployments.environments.items()
            ]
        )

    async def AppGetByDeploymentName(
        self, request: api_pb2.AppGetByDeploymentNameRequest
    ) -> api_pb2.AppGetByDeploymentNameResponse:
        app = self._deployments.deployed_app(request.name, request.environment_name)
        return api_pb2.AppGetByDeploymentNameResponse(
            app_id=app.id if app else "",
            environment_name=self._deployments.environment(request.environment_name),
        )

    async def AppGetOrCreate(self, request: api_pb2.AppGetOrCreateRequest) -> api_pb2.AppGetOrCreateResponse:
        app = self._deployments.deployed_app(request.app_name, request.environment_name)
        if app is None:
            if request.object_creation_type != CREATE_IF_MISSING:
                where = self._deployments.environment(request.environment_name)
                raise not_found(f"App '{request.app_name}' not found in environment '{where}'")
            app = self._deployments.create_app(request.app_name, request.environment_name, {})
            self._deployments.publish(
                api_pb2.AppPublishRequest(app_id=app.id, name=app.name, app_state=api_pb2.APP_STATE_DEPLOYED)
            )
        return api_pb2.AppGetOrCreateResponse(
            app_id=app.id,
            handle_metadata=api_pb2.AppHandleMetadata(
                app_id=app.id,
                description=app.name,
                environment_name=app.environment,
                functions={name: function.id for name, function in app.functions.items()},
            ),
        )

    async def AppCreate(self, request: api_pb2.AppCreateRequest) -> api_pb2.AppCreateResponse:
        app = self._deployments.create_app(request.description, request.environment_name, dict(request.tags))
        page = self._page(app.id)
        return api_pb2.AppCreateResponse(app_id=app.id, app_page_url=page, app_logs_url=f"{page}/logs")

    async def AppGetLayout(self, request: api_pb2.AppGetLayoutRequest) -> api_pb2.AppGetLayoutResponse:
        return api_pb2.AppGetLayoutResponse(app_layout=self._deployments.app(request.app_id).layout())

    async def AppHeartbeat(self, request: api_pb2.AppHeartbeatRequest) -> Empty:
        return Empty()

    async def AppClientDisconnect(self, request: api_pb2.AppClientDisconnectRequest) -> Empty:
        return Empty()

    async def AppPublish(self, request: api_pb2.AppPublishRequest) -> api_pb2.AppPublishResponse:
        deployed_at = self._deployments.publish(request)
        return api_pb2.AppPublishResponse(url=self._page(request.app_id), deployed_at=deployed_at)

    async def AppSetTags(self, request: api_pb2.AppSetTagsRequest) -> Empty:
        self._deployments.app(request.app_id).tags = dict(request.tags)
        return Empty()

    async def AppGetTags(self, request: api_pb2.AppGetTagsRequest) -> api_pb2.AppGetTagsResponse:
        return api_pb2.AppGetTagsResponse(tags=self._deployments.app(request.app_id).tags)

    async def FunctionPrecreate(
        self, request: api_pb2.FunctionPrecreateRequest
    ) -> api_pb2.FunctionPrecreateResponse:
        app = self._deployments.app(request.app_id)
        function = self._deployments.precreate(app, request.function_name, request.existing_function_id)
        return api_pb2.FunctionPrecreateResponse(
            function_id=function.id,
            handle_metadata=api_pb2.FunctionHandleMetadata(
                app_id=app.id,
                function_name=request.function_name,
                function_type=request.function_type,
                function_schema=request.function_schema,
                supported_input_formats=request.supported_input_formats,
                supported_output_formats=request.supported_output_formats,
            ),
        )

    async def FunctionCreate(self, request: api_pb2.FunctionCreateRequest) -> api_pb2.FunctionCreateResponse:
        app = self._deployments.app(request.app_id)
        name = request.function.function_name
        function = self._deployments.precreate(app, name, request.existing_function_id)
        definition_id = new_id("de")
        function.definitions[definition_id] = request.function
        return api_pb2.FunctionCreateResponse(
            function_id=function.id,
            function=request.function,
            function_data=_function_data(request.function),
            handle_metadata=function.handle_metadata(definition_id),
        )

    async def FunctionGet(self, request: api_pb2.FunctionGetRequest) -> api_pb2.FunctionGetResponse:
        function = self._deployments.lookup(request.app_name, request.object_tag, request.environment_name)
        return _found(function)

    async def FunctionBindParams(
        self, request: api_pb2.FunctionBindParamsRequest
    ) -> api_pb2.FunctionBindParamsResponse:
        variant = self._deployments.bind(request)
        return api_pb2.FunctionBindParamsResponse(
            bound_function_id=variant.id, handle_metadata=variant.function.handle_metadata()
        )


def _found(function: Function) -> api_pb2.FunctionGetResponse:
    return api_pb2.FunctionGetResponse(
        function_id=function.id,
        handle_metadata=function.handle_metadata(),
        function=_function_data(function.definition),
    )


def _function_data(definition: api_pb2.Function) -> api_pb2.FunctionData:
    """What the client shows of a function: FunctionInfo reads the resources of the ranked one."""
    return api_pb2.FunctionData(
        module_name=definition.module_name,
        function_name=definition.function_name,
        function_type=definition.function_type,
        timeout_secs=definition.timeout_secs,
        function_schema=definition.function_schema,
        supported_input_formats=definition.supported_input_formats,
        supported_output_formats=definition.supported_output_formats,
        ranked_functions=[api_pb2.FunctionData.RankedFunction(rank=0, function=definition)],
    )
