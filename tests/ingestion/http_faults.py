"""Faults of a source on the level of HTTP: the answer, what the error must say, and whether it may pass."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass

from tests.ingestion.scripted import (
    CUT_SHORT,
    NO_END,
    PARQUET,
    SLOW_HEADERS,
    Answer,
    body,
    half_a_file_then_silence,
    hang_up,
    raw,
    redirect,
    silence,
    status,
)


@dataclass(frozen=True)
class HttpFault:
    """`says` is a regular expression; a transient fault is asked again, and any other is not."""

    answer: Answer
    says: str
    transient: bool = False
    # How many requests one attempt takes.
    requests: int = 1
    timeout_seconds: float = 10.0


def _timeout(answer: Answer, says: str) -> HttpFault:
    return HttpFault(answer, says, transient=True, timeout_seconds=0.2)


def _ok(headers: bytes, content: bytes = PARQUET) -> Answer:
    return raw(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n" + content)


def _encoded(name: str, content: bytes) -> Answer:
    return _ok(f"Content-Encoding: {name}\r\nContent-Length: {len(content)}\r\n".encode(), content)


_HALF = PARQUET[: len(PARQUET) // 2]
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_LENGTH = f"Content-Length: {len(PARQUET)}\r\n".encode()

HTTP_FAULTS: Mapping[str, HttpFault] = {
    # Redirects
    "redirect to an open bracket": HttpFault(
        redirect("http://[::1"), "redirects to an address that cannot be parsed"
    ),
    "redirect to a long label": HttpFault(redirect(f"http://{'a' * 64}.test/x"), "host or port is not valid"),
    "redirect to an empty label": HttpFault(redirect("http://a..test/x"), "host or port is not valid"),
    "redirect to no host": HttpFault(redirect("https:///x"), "host or port is not valid"),
    "redirect to a bad port": HttpFault(redirect("http://shop.test:x/y"), "host or port is not valid"),
    "redirect to a high port": HttpFault(redirect("http://shop.test:99999/y"), "host or port is not valid"),
    "redirect to a file": HttpFault(
        redirect("file:///etc/passwd"), "scheme 'file'; allowed are http and https"
    ),
    "redirect to ftp": HttpFault(redirect("ftp://shop.test/x"), "scheme 'ftp'; allowed are http and https"),
    "redirect to javascript": HttpFault(redirect("javascript:alert(1)"), "scheme 'javascript'"),
    "redirect in a circle": HttpFault(
        redirect("/data/raw_orders.parquet"), "redirects more than 10 times", requests=11
    ),
    "redirect 307 in a circle": HttpFault(
        redirect("?again=1", 307), "redirects more than 10 times", requests=11
    ),
    "redirect without an address": HttpFault(status(302), "answered 302"),
    "redirect to an empty address": HttpFault(redirect(""), "answered 302"),
    "300": HttpFault(redirect("/x", 300), "answered 300"),
    # Statuses
    "204": HttpFault(status(204), "answered 204"),
    "206": HttpFault(status(206), "answered 206"),
    "304 unasked": HttpFault(status(304), "answered 304"),
    "400": HttpFault(status(400), "answered 400"),
    "401": HttpFault(status(401), "answered 401.*Check the credentials"),
    "403": HttpFault(status(403), "answered 403.*Check the credentials"),
    "404": HttpFault(status(404), "answered 404.*no such table"),
    "407": HttpFault(status(407), "answered 407.*HTTP_PROXY"),
    "410": HttpFault(status(410), "answered 410"),
    "501": HttpFault(status(501), "answered 501"),
    "408": HttpFault(status(408), "answered 408", transient=True),
    "429": HttpFault(status(429), "answered 429", transient=True),
    "500": HttpFault(status(500), "answered 500", transient=True),
    "502": HttpFault(status(502), "answered 502", transient=True),
    "503 with a date in the past": HttpFault(
        status(503, Retry_After="Fri, 27 Nov 2020 20:00:00 GMT"), "answered 503", transient=True
    ),
    # What is not HTTP
    "HTTP/0.9": HttpFault(raw(PARQUET), "the answer is not HTTP/1.1"),
    "another protocol": HttpFault(raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "the answer is not HTTP/1.1"),
    "a status that is no number": HttpFault(raw(b"HTTP/1.1 abc OK\r\n\r\n"), "the answer is not HTTP/1.1"),
    "a status below 100": HttpFault(raw(b"HTTP/1.1 099 OK\r\n\r\n"), "the answer is not HTTP/1.1"),
    "a later version": HttpFault(raw(b"HTTP/3.0 200 OK\r\n\r\n"), "the answer is not HTTP/1.1"),
    "an endless status line": HttpFault(
        raw(b"HTTP/1.1 200 " + b"x" * 70_000), "the headers of the answer are too long"
    ),
    "a header bomb": HttpFault(
        _ok(b"".join(b"X-%d: 1\r\n" % n for n in range(200))), "the headers of the answer are too long"
    ),
    "a long header": HttpFault(
        _ok(b"X: " + b"x" * 70_000 + b"\r\n"), "the headers of the answer are too long"
    ),
    "two lengths": HttpFault(_ok(b"Content-Length: 5, 6\r\n"), "contradictory Content-Length"),
    # Bodies
    "gzip that is not": HttpFault(
        _encoded("gzip", PARQUET), "not in the encoding that its Content-Encoding says"
    ),
    "deflate that is not": HttpFault(_encoded("deflate", b"\xff" * 99), "not in the encoding that its"),
    "an encoding that nobody asked for": HttpFault(
        _encoded("br", PARQUET), "Content-Encoding 'br', which was not"
    ),
    "an unknown encoding": HttpFault(_encoded("rot13", PARQUET), "Content-Encoding 'rot13', which was not"),
    "two encodings": HttpFault(_encoded("gzip, br", PARQUET), "Content-Encoding 'gzip, br', which was not"),
    "a login page": HttpFault(body(b"<html>Log in</html>", 19, "text/html"), "not parquet .text/html.*login"),
    "a gzipped page": HttpFault(_encoded("gzip", gzip.compress(b"<html>")), "not parquet .no content type"),
    "an empty body": HttpFault(body(b"", 0), "answered with an empty body"),
    "a body that never begins": HttpFault(body(b""), "broke off", transient=True),
    "a body of three bytes": HttpFault(body(b"PAR", 3), "broke off", transient=True),
    "magic bytes alone": HttpFault(body(b"PAR1", 4), "broke off", transient=True),
    "a length that is too short": HttpFault(body(PARQUET, len(PARQUET) - 9), "broke off", transient=True),
    "a length that is too long": HttpFault(CUT_SHORT, "cut in the middle of the file", transient=True),
    "a file without an end": HttpFault(NO_END, "the parquet file has no end", transient=True),
    "chunks of garbage": HttpFault(_ok(_CHUNKED, b"zz\r\n" + PARQUET), "cut in the middle", transient=True),
    "chunks without an end": HttpFault(
        _ok(_CHUNKED, b"%x\r\n%b\r\n" % (len(_HALF), _HALF)), "cut in the middle", transient=True
    ),
    "a chunk that is cut": HttpFault(
        _ok(_CHUNKED, b"%x\r\n%b" % (len(PARQUET), _HALF)), "cut in the", transient=True
    ),
    # The connection
    "no answer": _timeout(silence, "did not answer within"),
    "headers that have no end": HttpFault(
        SLOW_HEADERS, "did not answer within", transient=True, timeout_seconds=0.2
    ),
    "closed without an answer": HttpFault(hang_up, "closed without an answer", transient=True),
    "a body that stops coming": HttpFault(
        half_a_file_then_silence, "stopped coming", transient=True, timeout_seconds=0.2
    ),
}
# What looks odd and is a good answer all the same.
GOOD_ANSWERS: Mapping[str, Answer] = {
    "a length that is no number": _ok(b"Content-Length: abc\r\n"),
    "a negative length": _ok(b"Content-Length: -1\r\n"),
    "the same length twice": _ok(_LENGTH + _LENGTH),
    "a header that is none": _ok(_LENGTH + b"no colon\r\n"),
    "a redundant identity": _ok(_LENGTH + b"Content-Encoding: identity\r\n"),
    "chunks": _ok(_CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(PARQUET), PARQUET)),
    "gzip unasked": _encoded("gzip", gzip.compress(PARQUET)),
    "gzip in upper case": _encoded("GZIP", gzip.compress(PARQUET)),
    "gzip in two members": _encoded("gzip", gzip.compress(_HALF) + gzip.compress(PARQUET[len(_HALF) :])),
    "chunks of gzip": _ok(
        _CHUNKED + b"Content-Encoding: gzip\r\n",
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(gzip.compress(PARQUET)), gzip.compress(PARQUET)),
    ),
    "HTTP/1.0": raw(b"HTTP/1.0 200\r\n\r\n" + PARQUET),
}
