"""What ends the wait for a call: the worker, or the connection, which leaves the call in flight."""

import errno
import socket

import aiohttp
import pytest
from grpclib import GRPCError, Status
from grpclib.exceptions import StreamTerminatedError
from modal import exception

from serverless_assets.forecasting.compute import ComputeError, Size, WorkerFailed
from serverless_assets.forecasting.modal_errors import Unreachable, translate_call_errors, translate_errors

SIZE = Size(0.25, 256)


@pytest.mark.parametrize(
    "error",
    [
        StreamTerminatedError("Connection lost"),
        GRPCError(Status.UNAVAILABLE, "no connection"),
        GRPCError(Status.RESOURCE_EXHAUSTED, "slow down"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError("not completed"),
        exception.ConnectionError("Deadline exceeded"),
        exception.TimeoutError("no answer"),
        exception.ServiceError("no connection"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        socket.gaierror(-3, "Temporary failure in name resolution"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_connection_leaves_the_call_to_be_taken_up(error):
    with (
        pytest.raises(Unreachable, match="Call fc-1 goes on there") as told,
        translate_call_errors("fc-1", SIZE, 60.0),
    ):
        raise error
    assert told.value.transient


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (exception.ServiceError("no connection"), Unreachable),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), Unreachable),
        (TimeoutError("timed out"), Unreachable),
        (exception.InvalidError("no such option"), ComputeError),
        # A file that the image needs is not there, say.
        (FileNotFoundError(errno.ENOENT, "No such file"), FileNotFoundError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_only_a_connection_that_fails_makes_modal_unreachable(error, told):
    with pytest.raises(told) as raised, translate_errors("app", None):
        raise error
    assert type(raised.value) is told


@pytest.mark.parametrize(
    "error",
    [ValueError("no days"), OSError(errno.ENOSPC, "No space left on device"), FileNotFoundError("stan")],
    ids=lambda error: type(error).__name__,
)
def test_what_the_worker_raised_is_the_workers(error):
    with (
        pytest.raises(WorkerFailed, match=f"The worker failed with {type(error).__name__}"),
        translate_call_errors("fc-1", SIZE, 60.0),
    ):
        raise error


def test_a_call_that_modal_does_not_know_is_not_taken_up():
    with pytest.raises(ComputeError) as told, translate_call_errors("fc-1", SIZE, 60.0):
        raise GRPCError(Status.NOT_FOUND, "no such call")
    assert not told.value.transient
