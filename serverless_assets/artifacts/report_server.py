"""Serve the reports in a folder on 127.0.0.1, beside the UI: a page from http cannot link to a file."""

import html
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from serverless_assets.names import MAIN_JOB

HOST = "127.0.0.1"
# A name without a folder in it, so that a request leads to no other file.
REPORT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*\.html")
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    # What the page says itself, but for hashes, and that no other page may frame it.
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # The next release has the same address.
    "Cache-Control": "no-store",
}


PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
    "<style>body {{ font: 1rem/1.5 system-ui; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }}</style>"
    "<title>{title}</title><h1>{title}</h1>{body}"
)
NOTHING_PUBLISHED = PAGE.format(
    title="No report was published yet",
    body="<p>The first run that succeeds publishes one. Type <code>make run</code> in the folder of the "
    f"project, or launch the job <code>{MAIN_JOB}</code> in Dagster, then reload this page.</p>",
)


def start_report_server(folder: Path) -> str:
    """Serve the reports in `folder` until this process ends, also if it executes another program by then.

    Returns:
        the address below which they are.
    """
    with socket.create_server((HOST, 0)) as listener:
        alive, open_until_end = os.pipe()
        # Closed by the end of the process alone, which is how the server notices it.
        os.set_inheritable(open_until_end, True)
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder), str(listener.fileno())],
            stdin=alive,
            pass_fds=[listener.fileno()],
        )
        os.close(alive)
        return f"http://{HOST}:{listener.getsockname()[1]}"


class ReportHandler(BaseHTTPRequestHandler):
    """Answers GET with a report; at `/`, and where there is no such report, with links to all of them."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def __init__(self, folder: Path, *connection: Any) -> None:
        self.folder = folder
        super().__init__(*connection)

    def do_GET(self) -> None:
        # A page of another host, whose name leads here, may not read a report.
        host = self.headers.get("Host", "").rpartition(":")[0]
        status, page = self._page() if host in (HOST, "localhost") else (HTTPStatus.MISDIRECTED_REQUEST, b"")
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Length": str(len(page))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing between the lines of the UI."""

    def _page(self) -> tuple[HTTPStatus, bytes]:
        name = unquote(self.path.partition("?")[0].removeprefix("/"))
        try:
            if REPORT.fullmatch(name):
                return HTTPStatus.OK, (self.folder / name).read_bytes()
        except OSError:
            pass
        names = sorted(path.name for path in self.folder.glob("*.html"))
        links = "".join(f'<li><a href="{quote(name)}">{html.escape(name)}</a></li>' for name in names)
        title = f"There is no report {html.escape(name)}" if name else "Reports"
        text = PAGE.format(title=title, body=f"<p>Published reports:</p><ul>{links}</ul>")
        status = HTTPStatus.NOT_FOUND if name else HTTPStatus.OK
        return status, (text if names else NOTHING_PUBLISHED).encode()


def _serve(folder: Path, listener: socket.socket) -> None:
    """Serve until standard input ends."""
    # Of Ctrl-C, too: the UI ends then, and with it this input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = ThreadingHTTPServer((HOST, 0), partial(ReportHandler, folder), bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
