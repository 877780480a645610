"""Whether what a source answered is the table: its status, and the first and last bytes of the file."""

from typing import BinaryIO
from urllib.parse import unquote

import requests

from serverless_assets.errors import UserError
from serverless_assets.ingestion.addresses import without_credentials
from serverless_assets.ingestion.http import printable
from serverless_assets.ingestion.http_errors import TRANSIENT_STATUS
from serverless_assets.ingestion.retries import retry_after_seconds
from serverless_assets.ingestion.validators import Validators

PARQUET_MAGIC = b"PAR1"
# The magic bytes at both ends, and the length of the footer.
SMALLEST_PARQUET_BYTES = 12


class SourceError(UserError):
    """The source cannot give this table.

    `transient`: it may do so when asked again; `retry_after`: the seconds that it asked to wait before.
    """

    def __init__(self, message: str, transient: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after


def refuse_bad_status(response: requests.Response, method: str, url: str, held: Validators) -> None:
    """Refuse an answer that is not the table, or the word that it is the one of the validators `held`.

    Raises:
        SourceError: it may pass if the status says so.
    """
    status = response.status_code
    if status == requests.codes.ok or (held and status == requests.codes.not_modified):
        return
    shown, final = without_credentials(url), without_credentials(response.url)
    # The client writes an address in its own way, with %20 for a space.
    redirected = f", redirected to {final}," if unquote(final).lower() != unquote(shown).lower() else ""
    said = f"{method} {shown}{redirected} answered {status} {printable(response.reason or '')}".rstrip() + "."
    if status in TRANSIENT_STATUS:
        raise SourceError(said, True, retry_after_seconds(response.headers))
    if status == requests.codes.not_found:
        raise SourceError(
            f"{said} The source has no such table there: check SERVERLESS_DATASET_URL or dataset_url."
        )
    if status in (requests.codes.unauthorized, requests.codes.forbidden):
        raise SourceError(f"{said} Check the credentials in the dataset URL.")
    if status == requests.codes.proxy_authentication_required:
        raise SourceError(f"{said} Check the credentials in HTTP_PROXY.")
    raise SourceError(said)


def refuse_other_than_parquet(file: BinaryIO, response: requests.Response, shown: str) -> None:
    """Refuse what `file` holds if it is not a complete parquet file, by its first and last bytes.

    Raises:
        SourceError: it may pass if the answer broke off.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(len(PARQUET_MAGIC))
    file.seek(max(0, size - len(PARQUET_MAGIC)))
    tail = file.read()
    if size == 0 and "Content-Length" in response.headers:
        raise SourceError(f"GET {shown} answered with an empty body: there is no file.")
    if not PARQUET_MAGIC.startswith(head):
        kind = printable(response.headers.get("Content-Type", "").partition(";")[0]) or "no content type"
        raise SourceError(
            f"GET {shown} answered {size:,} bytes that are not parquet ({kind}). "
            "Does the address lead to a login or error page?"
        )
    if tail != PARQUET_MAGIC or size < SMALLEST_PARQUET_BYTES:
        # A server that closes early without a Content-Length looks like a complete answer.
        raise SourceError(f"GET {shown} broke off: the parquet file has no end.", transient=True)
