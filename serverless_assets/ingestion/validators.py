"""What HTTP gives to ask for an answer only if it changed (RFC 9110, 8.8 and 13.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

# An ETag may be of any length; a note has room for what people use.
LONGEST_ETAG = 256


@dataclass(frozen=True)
class Validators:
    """What a server calls an answer, to ask it whether it would still give the same. Empty if it does not."""

    etag: str = ""
    last_modified: str = ""

    def __bool__(self) -> bool:
        return bool(self.etag or self.last_modified)

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Validators":
        """Those in an answer's headers, as far as they tell one version of a file from the next.

        A file that was modified in the very second in which it was served may be so again within it. What
        is made of its time, as most servers' ETags are, would not tell.
        """
        etag, last_modified = _sendable(headers.get("ETag", "")), _sendable(headers.get("Last-Modified", ""))
        age = _seconds_between(last_modified, headers.get("Date", ""))
        return cls(
            etag if len(etag) <= LONGEST_ETAG and age != 0 else "",
            last_modified if age is not None and age >= 1 else "",
        )

    def as_headers(self) -> dict[str, str]:
        """The request headers that ask for an answer only if it changed."""
        headers = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in headers.items() if value}


NO_VALIDATORS = Validators()


def _seconds_between(earlier: str, later: str) -> float | None:
    """The seconds from one HTTP date to another, in whole numbers; None if one of them is no date."""
    try:
        return (parsedate_to_datetime(later) - parsedate_to_datetime(earlier)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None


def _sendable(value: str) -> str:
    """`value` if it can be sent back as a header; a folded header has a line break in it."""
    return value if value.isprintable() and value.isascii() else ""
