"""What containers print: kept per app, streamed while they run, counted and fetched afterwards."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from modal_proto import api_pb2

from tests.services.modal.watched import Watched

STDOUT = api_pb2.FILE_DESCRIPTOR_STDOUT
STDERR = api_pb2.FILE_DESCRIPTOR_STDERR
SYSTEM = api_pb2.FILE_DESCRIPTOR_INFO


@dataclass(frozen=True)
class Entry:
    """One line, and whose it is."""

    number: int
    line: str
    source: "api_pb2.FileDescriptor.ValueType"
    timestamp_ns: int
    function_id: str
    function_call_id: str
    input_id: str
    task_id: str

    def batch(self) -> api_pb2.TaskLogsBatch:
        return api_pb2.TaskLogsBatch(
            entry_id=f"{self.number}-0",
            task_id=self.task_id,
            function_id=self.function_id,
            input_id=self.input_id,
            items=[
                api_pb2.TaskLogs(
                    data=self.line,
                    file_descriptor=self.source,
                    timestamp=self.timestamp_ns / 1e9,
                    timestamp_ns=self.timestamp_ns,
                    function_call_id=self.function_call_id,
                    input_id=self.input_id,
                    container_id=self.task_id,
                )
            ],
        )


def _selects(request: api_pb2.AppGetLogsRequest | api_pb2.AppFetchLogsRequest, source: int) -> Callable:
    def selected(entry: Entry) -> bool:
        return (
            source in (api_pb2.FILE_DESCRIPTOR_UNSPECIFIED, entry.source)
            and request.function_call_id in ("", entry.function_call_id)
            and request.function_id in ("", entry.function_id)
            and request.task_id in ("", entry.task_id)
            and request.search_text in entry.line
        )

    return selected


class AppLogs(Watched):
    """The entries of one app. Their numbers start at one, so that an empty entry id means from the start."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[Entry] = []

    def add(self, line: str, source: "api_pb2.FileDescriptor.ValueType", **whose: str) -> None:
        self._entries.append(Entry(len(self._entries) + 1, line, source, time.time_ns(), **whose))
        self.touch()

    def after(self, number: int) -> list[Entry]:
        return self._entries[number:]

    async def more_than(self, number: int, timeout: float) -> bool:
        return await self.wait_until(lambda: len(self._entries) > number, timeout)

    def between(self, since: Timestamp, until: Timestamp) -> Iterable[Entry]:
        """From `since` on and before `until`, as the client asks for neighbouring intervals."""
        first, last = since.ToNanoseconds(), until.ToNanoseconds()
        return (entry for entry in self._entries if first <= entry.timestamp_ns < last)


class Logs:
    def __init__(self) -> None:
        self._apps: dict[str, AppLogs] = {}

    def of(self, app_id: str) -> AppLogs:
        return self._apps.setdefault(app_id, AppLogs())

    async def AppGetLogs(self, request: api_pb2.AppGetLogsRequest) -> AsyncIterator[api_pb2.TaskLogsBatch]:
        """Entries as they come, until the time asked for is over. The client then decides whether to go on
        from the last entry it has."""
        logs = self.of(request.app_id)
        selected = _selects(request, request.file_descriptor)
        number = int((request.last_entry_id or "0").partition("-")[0])
        deadline = time.monotonic() + request.timeout
        while True:
            for entry in logs.after(number):
                number = entry.number
                if selected(entry):
                    yield entry.batch()
            left = deadline - time.monotonic()
            if left <= 0 or not await logs.more_than(number, left):
                return

    async def AppFetchLogs(self, request: api_pb2.AppFetchLogsRequest) -> api_pb2.AppFetchLogsResponse:
        """The most recent ones, oldest first, if there are more than the limit."""
        selected = _selects(request, request.source)
        entries = list(filter(selected, self.of(request.app_id).between(request.since, request.until)))
        return api_pb2.AppFetchLogsResponse(batches=[entry.batch() for entry in entries[-request.limit :]])

    async def AppCountLogs(self, request: api_pb2.AppCountLogsRequest) -> api_pb2.AppCountLogsResponse:
        """How many entries of each source per bucket of time; buckets with none are left out."""
        selected = _selects(request, request.source)
        counts = Counter(
            (int(entry.timestamp_ns // 1e9) // request.bucket_secs * request.bucket_secs, entry.source)
            for entry in self.of(request.app_id).between(request.since, request.until)
            if selected(entry)
        )
        return api_pb2.AppCountLogsResponse(
            app_id=request.app_id,
            buckets=[
                api_pb2.AppCountLogsResponse.LogBucket(
                    bucket_start_at=Timestamp(seconds=start),
                    stdout_logs=counts[start, STDOUT],
                    stderr_logs=counts[start, STDERR],
                    system_logs=counts[start, SYSTEM],
                )
                for start in sorted({start for start, _ in counts})
            ],
        )
