"""Whom a request reaches, and what it takes along: redirects, credentials, proxies, certificates."""

import ssl
from base64 import b64encode
from datetime import date
from http.server import BaseHTTPRequestHandler

import pytest

from serverless_assets.ingestion.http import HttpError, request
from serverless_assets.ingestion.http_client import SourceError
from serverless_assets.sample_shop import SampleSource
from tests.ingestion.certificates import self_signed
from tests.ingestion.scripted import GOOD, PARQUET, PASSWORD, TOKEN, USER, redirect, shop, status
from tests.raw_tables import RAW_ORDERS, RAW_STORES
from tests.services.listening import listening

BASIC = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies_from_outside(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)


def with_password(url: str) -> str:
    return url.replace("://", f"://{USER}:{PASSWORD}@")


# ---- redirects


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/moved?x=1", "//{host}/moved?x=1", "http://{host}/moved?x=1"])
def test_redirect_on_the_same_host_is_followed_with_the_credentials(fetch, code, location):
    with shop(lambda *asked: answer(*asked), GOOD) as server:
        answer = redirect(location.format(host=server.host), code)
        assert fetch(with_password(server.url)).path.read_bytes() == PARQUET
    assert server.asked == ["/data/raw_orders.parquet", "/moved?x=1"]
    assert [headers.get("Authorization") for headers in server.headers] == [BASIC, BASIC]


def test_redirect_to_another_host_is_followed_without_the_credentials(fetch):
    with shop(GOOD) as other, shop(redirect(f"{other.url}/moved")) as server:
        url = with_password(f"{server.url}?token={TOKEN}")
        download = fetch(url)
    assert download.path.read_bytes() == PARQUET
    assert "Authorization" not in other.headers[0]
    assert not any(secret in f"{other.asked}{other.headers}" for secret in (USER, PASSWORD, TOKEN))


def test_redirect_there_and_back_does_not_bring_the_credentials_back(fetch):
    with shop(lambda *asked: back(*asked)) as other, shop(redirect(f"{other.url}/x"), GOOD) as server:
        back = redirect(f"{server.url}/moved")
        fetch(with_password(server.url))
    assert [headers.get("Authorization") for headers in server.headers] == [BASIC, None]


def test_redirect_that_has_credentials_of_its_own_is_followed_with_them(fetch):
    with shop(GOOD) as other, shop(redirect(f"http://ann:p%40ss@{other.host}/moved")) as server:
        fetch(with_password(server.url))
    assert other.headers[0]["Authorization"] == "Basic " + b64encode(b"ann:p@ss").decode()


def test_redirect_from_https_to_http_is_refused(fetch, tmp_path, monkeypatch):
    context = self_signed(tmp_path / "shop.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "shop.pem"))
    with (
        shop(GOOD) as plain,
        shop(redirect(f"{plain.url}?token={TOKEN}"), tls=context) as server,
        pytest.raises(SourceError, match=f"redirects to {plain.url}, which is not encrypted") as raised,
    ):
        fetch(server.url)
    assert TOKEN not in str(raised.value)
    assert (len(server.asked), len(plain.asked)) == (1, 0)


def test_head_stays_head_when_it_is_redirected(source):
    with shop(redirect("/moved"), status(200, ETag='"1"')) as server:
        assert source(server.url).validators(RAW_ORDERS, None).etag == '"1"'
    assert server.methods == ["HEAD", "HEAD"]


def test_body_of_a_redirect_is_not_read(fetch):
    def endless(handler, test_over):
        handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /moved\r\nContent-Length: 1000000000\r\n\r\n")
        test_over.wait(30)

    with shop(endless, GOOD) as server:
        assert fetch(server.url).path.read_bytes() == PARQUET


# ---- credentials


def test_netrc_is_not_read(fetch, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with shop(GOOD) as server:
        fetch(server.url)
        fetch(server.url.replace("://", "://ann:own@"))
    assert "Authorization" not in server.headers[0]
    assert server.headers[1]["Authorization"] == "Basic " + b64encode(b"ann:own").decode()


def test_password_may_be_in_any_alphabet(fetch):
    with shop(GOOD) as server:
        fetch(server.url.replace("://", "://ann:%C5%82%E2%82%AC%3A@"))
    assert server.headers[0]["Authorization"] == "Basic " + b64encode("ann:ł€:".encode()).decode()


# ---- proxies


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_remote_source_is_asked_through_the_proxy_of_the_environment(fetch, monkeypatch, variable):
    with shop(GOOD) as proxy:
        monkeypatch.setenv(variable, f"http://{proxy.host}")
        assert fetch("http://shop.invalid/data").path.read_bytes() == PARQUET
    assert proxy.asked == ["http://shop.invalid/data/raw_orders.parquet"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "shop.localhost"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_this_machine_is_never_asked_through_a_proxy(monkeypatch, variable, host):
    with shop(status(200)) as proxy:
        monkeypatch.setenv(variable, f"http://{proxy.host}")
        with pytest.raises(HttpError), request("GET", f"http://{host}:9/", 5.0):
            pass
    assert proxy.asked == []


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"])
def test_bundled_shop_is_never_asked_through_a_proxy(tmp_path, lines, monkeypatch, variable):
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with SampleSource(7, lambda: date(2026, 10, 31)).open() as sample:
        assert sample.fetch(RAW_STORES, None, tmp_path / "file", lines.append).bytes
        assert sample.validators(RAW_STORES, None)
    assert lines == []


def test_redirect_to_this_machine_is_not_asked_through_a_proxy_either(fetch, monkeypatch):
    with shop(GOOD) as server, shop(redirect(f"{server.url}/x")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.host}")
        assert fetch("http://shop.invalid/data").path.read_bytes() == PARQUET
    assert (len(proxy.asked), server.asked) == (1, ["/data/x"])


@pytest.mark.parametrize(
    ("variable", "value", "url", "says", "attempts"),
    [
        (
            "HTTP_PROXY",
            f"http://{USER}:{PASSWORD}@127.0.0.1:9",
            "http://shop.invalid",
            "cannot be reached",
            2,
        ),
        ("HTTPS_PROXY", "127.0.0.1:9", "https://shop.invalid", "cannot be reached", 2),
        (
            "HTTP_PROXY",
            f"http://{USER}:{PASSWORD}@[::1",
            "http://shop.invalid",
            "the proxy|cannot be made",
            1,
        ),
        ("HTTP_PROXY", "http://", "http://shop.invalid", r"the proxy .* is not an address", 1),
        ("ALL_PROXY", "socks5://127.0.0.1:9", "http://shop.invalid", "not supported", 1),
    ],
)
def test_proxy_that_cannot_be_used_is_named_in_words(
    fetch, lines, monkeypatch, variable, value, url, says, attempts
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SourceError, match=says) as raised:
        fetch(url, attempts=2)
    assert len(lines) == attempts - 1
    assert not any(secret in str(raised.value) for secret in (USER, PASSWORD))


@pytest.mark.parametrize(("code", "attempts"), [(407, 1), (403, 1), (503, 2)])
def test_proxy_that_refuses_to_connect_is_asked_again_only_if_that_may_pass(
    fetch, lines, monkeypatch, code, attempts
):
    def refuse(handler, test_over):
        handler.wfile.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % code)

    with shop(refuse) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.host}")
        with pytest.raises(SourceError, match=f"the proxy refused the connection with status {code}"):
            fetch("https://shop.invalid/data", attempts=2)
    assert len(proxy.asked) == attempts


# ---- names and certificates


def test_host_name_that_does_not_exist_is_not_asked_again(fetch, lines):
    with pytest.raises(SourceError, match="host name cannot be resolved"):
        fetch("http://shop.invalid/data")
    assert lines == []


@pytest.mark.parametrize(
    ("address", "days", "says"),
    [
        ("127.0.0.1", 1, "could not be verified .self-signed certificate.*REQUESTS_CA_BUNDLE"),
        ("127.0.0.1", -1, "could not be verified .certificate has expired"),
        ("127.0.0.9", 1, "could not be verified .IP address mismatch"),
    ],
)
def test_certificate_that_is_not_trusted_is_not_asked_again(
    fetch, lines, tmp_path, monkeypatch, address, days, says
):
    context = self_signed(tmp_path / "shop.pem", address, days)
    if "self-signed" not in says:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "shop.pem"))
    with shop(GOOD, tls=context) as server, pytest.raises(SourceError, match=says):
        fetch(server.url)
    assert (server.asked, lines) == ([], [])


def test_authority_of_the_environment_is_trusted(fetch, tmp_path, monkeypatch):
    context = self_signed(tmp_path / "shop.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "shop.pem"))
    with shop(GOOD, tls=context) as server:
        assert fetch(server.url).path.read_bytes() == PARQUET


def test_bundle_of_authorities_that_does_not_exist_is_named(fetch, lines, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/authorities.pem")
    with pytest.raises(SourceError, match=r"REQUESTS_CA_BUNDLE .* names a file that does not exist"):
        fetch("https://127.0.0.1:9")
    assert lines == []


def test_server_that_does_not_speak_tls_is_not_asked_again(fetch, lines):
    with shop(GOOD) as server, pytest.raises(SourceError, match="there is no TLS connection"):
        fetch(server.url.replace("http:", "https:"))
    assert lines == []


def test_server_with_no_tls_version_in_common_is_not_asked_again(fetch, lines, tmp_path):
    context = self_signed(tmp_path / "shop.pem")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("NULL-SHA256:@SECLEVEL=0")
    with shop(GOOD, tls=context) as server, pytest.raises(SourceError, match="there is no TLS connection"):
        fetch(server.url)
    assert lines == []


def test_tls_that_is_closed_in_the_handshake_is_asked_again(fetch, lines):
    class HangsUp(BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.connection.recv(1000)

    with listening(HangsUp) as server, pytest.raises(SourceError, match="Gave up after 2 attempts"):
        fetch(f"https://127.0.0.1:{server.server_port}", attempts=2)
    assert len(lines) == 1
