"""Translate the errors of the Modal client into messages that say what happened and what to do."""

import errno
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import aiohttp
from grpclib import GRPCError, Status
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from modal import exception

# Outside Modal's public API; tests/forecasting/test_modal_internals.py checks it. A public address of the
# server, or a time limit of the client for connecting, would replace it.
from modal.config import config

from serverless_assets.forecasting.compute import ComputeError, OutOfMemory, Size, WorkerFailed

DEPLOY = "`make deploy-modal`"
# What Modal says of a container that reached its limit; the client gives the status as text alone.
OUT_OF_MEMORY_SIGNS = ("out of memory", "oom", "exit code 137", "exit code: 137")
SECONDS_TO_CONNECT = 5.0
# What the client raises once its own attempts are used up. None of it says anything of the worker.
TRANSPORT = (
    exception.ConnectionError, exception.ClientClosed, exception.TimeoutError, exception.ServiceError,
    exception.InternalError, exception.DataLossError,
    exception.ResourceExhaustedError, StreamTerminatedError, ProtocolError, aiohttp.ClientError,
    ConnectionError, socket.gaierror, ssl.SSLError,
)  # fmt: skip
TRANSPORT_STATUSES = (
    Status.ABORTED, Status.CANCELLED, Status.DATA_LOSS, Status.DEADLINE_EXCEEDED, Status.INTERNAL,
    Status.RESOURCE_EXHAUSTED, Status.UNAVAILABLE, Status.UNKNOWN,
)  # fmt: skip
NO_ROUTE = (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT)


class Unreachable(ComputeError):
    """Modal did not answer. A call that was started goes on there."""

    transient = True


class Crashed(WorkerFailed):
    """The worker's container ended before there was an answer."""

    transient = True


class Busy(ComputeError):
    """Modal takes no more calls for now."""

    transient = True


class WorkerDiffers(ComputeError):
    """The deployed worker runs other code than this."""

    def __init__(self, app: str, deployed: str, own: str) -> None:
        super().__init__(
            f"The worker deployed as Modal app {app!r} runs code {deployed}, and this is {own}: its answer "
            f"could mean something else. Deploy this code with {DEPLOY}, then run again."
        )


@contextmanager
def translate_errors(app: str, environment: str | None) -> Iterator[None]:
    """Turn what the Modal client raises before there is a call into a `ComputeError`."""
    try:
        yield
    except exception.AuthError as error:
        raise ComputeError(
            f"Modal does not accept the token ({_text(error)}). Set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, "
            "or run `modal token new`."
        ) from None
    except exception.PermissionDeniedError as error:
        raise ComputeError(f"Modal: this token may not do that ({_text(error)}).") from None
    except exception.NotFoundError as error:
        where = f"environment {environment!r}" if environment else "the token's default environment"
        raise ComputeError(
            f"There is no worker to call: Modal app {app!r} in {where} is not deployed ({_text(error)}). "
            f"Deploy it with {DEPLOY}."
        ) from None
    except exception.ResourceExhaustedError as error:
        raise Busy(f"A limit of Modal was reached ({_text(error)}). Run again later.") from None
    except Exception as error:
        # To connect may time out, too.
        if _is_of_transport(error) or isinstance(error, TimeoutError):
            raise Unreachable(
                f"Modal cannot be reached ({_text(error)}). Check the network and MODAL_SERVER_URL, then "
                "run again."
            ) from None
        if isinstance(error, exception.Error):
            raise ComputeError(f"Modal refused: {_text(error)}") from None
        raise


@contextmanager
def translate_call_errors(call_id: str, size: Size, deadline_seconds: float) -> Iterator[None]:
    """Turn what waiting for a call raises into a `ComputeError`, also what the worker itself raised."""
    try:
        yield
    except exception.FunctionTimeoutError:
        raise deadline_passed(deadline_seconds) from None
    except exception.OutputExpiredError:
        raise ComputeError(f"Modal no longer has the answer to call {call_id}. Run again.") from None
    except exception.InternalFailure as error:
        raise Crashed(
            f"The worker's container crashed before there was an answer ({_text(error)}). Run again; if it "
            "crashes again, choose more memory."
        ) from None
    except exception.RemoteError as error:
        if any(sign in str(error).lower() for sign in OUT_OF_MEMORY_SIGNS):
            raise OutOfMemory(size) from None
        raise WorkerFailed(f"Modal ended call {call_id}: {_text(error)}. Run again.") from None
    except SystemExit as error:
        raise WorkerFailed(f"The worker ended itself with exit code {error.code}.") from None
    except (ComputeError, TimeoutError):
        raise
    except Exception as error:
        if _is_of_transport(error):
            raise Unreachable(
                f"Modal cannot be reached ({_text(error)}). Call {call_id} goes on there: run again, and its "
                "answer is picked up instead of being paid for twice."
            ) from None
        raise WorkerFailed(f"The worker failed with {type(error).__name__}: {_text(error)}") from None


def _is_of_transport(error: Exception) -> bool:
    """Whether the connection to Modal failed, rather than the worker, whose exceptions come as their own."""
    if isinstance(error, GRPCError) and not isinstance(error, exception.Error):
        return error.status in TRANSPORT_STATUSES
    return isinstance(error, TRANSPORT) or (isinstance(error, OSError) and error.errno in NO_ROUTE)


def deadline_passed(seconds: float) -> WorkerFailed:
    """Return the error for a call that took too long."""
    return WorkerFailed(
        f"The forecast was stopped: no answer within {seconds:.0f} s. Choose more cpu or fewer days, or "
        "raise SERVERLESS_FORECAST_DEADLINE."
    )


def _text(error: BaseException) -> str:
    return str(error).strip().rstrip(".").splitlines()[-1] if str(error).strip() else type(error).__name__


def refuse_if_nobody_listens() -> None:
    """Check the connection within seconds, for which the client takes up to a minute.

    Behind a proxy only the client can check it, and nothing is done here. Raises OSError.
    """
    address = urlsplit(str(config["server_url"]))
    proxied = {"https", "http", "all"} & urllib.request.getproxies().keys()
    if proxied and not config["disable_api_proxy"]:
        return
    port = address.port or (443 if address.scheme == "https" else 80)
    socket.create_connection((address.hostname or "", port), SECONDS_TO_CONNECT).close()
