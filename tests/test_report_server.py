"""The reports on 127.0.0.1, beside the UI."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

# Starts the server, then becomes another program, as `serverless ui` does.
START = """
import os, sys
from pathlib import Path
from serverless_assets.artifacts.report_server import start_report_server
print(start_report_server(Path(sys.argv[1])), flush=True)
os.execvp("cat", ["cat"])
"""


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the address of the server and its process, until the program beside it ends."""
    with subprocess.Popen(
        [sys.executable, "-c", START, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout
        address = program.stdout.readline().strip()
        [server] = psutil.Process(program.pid).children()
        yield address, server


def get(address: str, path: str, host: str | None = None) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """A link to a release with a report, beside a file that nobody is to read."""
    (tmp_path / "secret.html").write_text("for nobody")
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "forecast.html").write_text(f"release {number}")
        (tmp_path / str(number) / "forecast.parquet").write_text("rows")
    (tmp_path / "artifacts").symlink_to(tmp_path / "1")
    return tmp_path / "artifacts"


def test_the_published_reports_are_served_as_long_as_the_ui_lives(reports: Path):
    with served(reports) as (address, server):
        answer, text = get(address, "/forecast.html")
        assert (answer.status, text) == (200, "release 1")
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert 'href="forecast.html"' in get(address, "/")[1]
        reports.unlink()
        reports.symlink_to(reports.parent / "2")
        assert get(address, "/forecast.html?again")[1] == "release 2"
    server.wait(30)
    assert not server.is_running()


def test_before_the_first_report_every_page_says_how_to_make_one(tmp_path: Path):
    with served(tmp_path / "artifacts") as (address, _):
        for path, status in (("/", 200), ("/forecast.html", 404)):
            answer, text = get(address, path)
            assert answer.status == status
            assert "No report was published yet" in text and "<code>make run</code>" in text


def test_nothing_else_is_served_and_to_nobody_else(reports: Path):
    with served(reports) as (address, _):
        paths = "/../secret.html", "/..%2Fsecret.html", f"/{reports.parent}/secret.html", "/forecast.parquet"
        for path in (*paths, "/none.html", "//1/forecast.html"):
            answer, text = get(address, path)
            assert (answer.status, "for nobody" in text) == (404, False), path
        answer, text = get(address, "/<b>.html")
        assert "There is no report &lt;b&gt;.html" in text and 'href="forecast.html"' in text
        port = urlsplit(address).port
        assert get(address, "/forecast.html", f"localhost:{port}")[0].status == 200
        assert get(address, "/forecast.html", f"shop.example:{port}")[0].status == 421
        with pytest.raises(OSError, match="refused"):
            HTTPConnection("127.0.0.2", port, timeout=30).connect()
