"""One function call, from its input to its outcome."""

import asyncio
import time

from modal_proto import api_pb2

from tests.services.modal.containers import Container
from tests.services.modal.outcomes import Outcome
from tests.services.modal.report import CallReport, CallStatus
from tests.services.modal.state import Variant, new_id
from tests.services.modal.watched import Watched


class Call(Watched):
    """One call of one input. It goes on whatever becomes of the client, and keeps its result."""

    def __init__(
        self,
        variant: Variant,
        input: api_pb2.FunctionInput,
        invocation_type: "api_pb2.FunctionCallInvocationType.ValueType",
        input_bytes: int,
    ) -> None:
        super().__init__()
        self.id = new_id("fc")
        self.input_id = new_id("in")
        self.variant = variant
        self.definition = variant.definition()
        self.input = input
        self.invocation_type = invocation_type
        self.input_bytes = input_bytes
        self.output_bytes = 0
        self.created_at = time.time()
        self.status = CallStatus.PENDING
        self.outcome: Outcome | None = None
        self.containers_started = 0
        self.container: Container | None = None
        self.cancelling = False
        self.task: asyncio.Task[None] | None = None

    def becomes(self, status: CallStatus, outcome: Outcome | None = None) -> None:
        self.status, self.outcome = status, outcome
        self.touch()

    def report(self) -> CallReport:
        resources = self.definition.resources
        app = self.variant.function.app
        result = self.outcome.result if self.outcome else api_pb2.GenericResult()
        return CallReport(
            call_id=self.id,
            app=app.name,
            environment=app.environment,
            function=self.variant.function.name,
            cpu=(resources.milli_cpu / 1000, cores_of(resources)),
            memory=(resources.memory_mb, resources.memory_mb_max or None),
            timeout=self.definition.timeout_secs,
            regions=tuple(self.definition.scheduler_placement.regions),
            status=self.status,
            containers_started=self.containers_started,
            container_pid=self.container.pid if self.container else None,
            peak_memory_mib=round(self.container.peak_memory_mib, 1) if self.container else 0.0,
            input_bytes=self.input_bytes,
            input_is_blob=bool(self.input.args_blob_id),
            output_bytes=self.output_bytes,
            output_is_blob=bool(result.data_blob_id),
            exception=result.exception,
        )


def cores_of(resources: api_pb2.Resources) -> float | None:
    """The limit, not the request."""
    return resources.milli_cpu_max / 1000 if resources.milli_cpu_max else None
