"""Which addresses can be requested, and how they and other text are shown without secrets."""

import pytest

from serverless_assets.addresses import (
    is_http_address,
    is_loopback,
    may_have_credentials,
    without_credentials,
    without_secrets,
)


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.test",
        "https://ann:p@shop.test:8443/data?x=1",
        "http://localhost:1/",
        "http://raw_data:9000",
        "http://127.0.0.1",
        "http://[::1]:80/x",
        "https://shop.test./My folder",
        "https://münchen.test",
        f"http://{'a' * 63}.test",
    ],
)
def test_address_that_can_be_asked(url):
    assert is_http_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "shop.test",
        "file:///etc/passwd",
        "http://",
        "http:///x",
        "http://:80",
        "http://[::1",
        "http://[::1::2]",
        "http://[shop]",
        "http://shop.test:port",
        "http://shop.test:65536",
        "http://shop.test:0",
        "http://shop..test",
        "http://.shop.test",
        "http://*.test",
        "http://a b.test",
        f"http://{'a' * 64}.test",
        f"http://{'ä' * 63}.test",
        "http://" + ".".join(["a" * 60] * 5),
    ],
)
def test_address_that_cannot_be_asked(url):
    assert not is_http_address(url)


@pytest.mark.parametrize(
    ("host", "is_this_machine"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("shop.localhost", True),
        ("localhost.test", False),
        ("127.0.0.1.test", False),
        ("10.0.0.1", False),
        ("0.0.0.1", False),
    ],
)
def test_loopback_is_this_machine(host, is_this_machine):
    assert is_loopback(f"http://{host}:3000/x") == is_this_machine


@pytest.mark.parametrize(
    ("origin", "target", "may"),
    [
        ("http://shop.test/a", "http://shop.test/b", True),
        ("http://shop.test/a", "http://SHOP.test:80/b", True),
        ("http://shop.test/a", "https://shop.test/b", True),
        ("https://shop.test/a", "https://shop.test:443/b", True),
        ("https://shop.test/a", "https://shop.test:444/b", False),
        ("http://shop.test:81/a", "https://shop.test/b", False),
        ("https://shop.test/a", "https://www.shop.test/b", False),
        ("https://shop.test/a", "https://shop.test.evil.test/b", False),
    ],
)
def test_credentials_are_for_one_origin_and_its_upgrade_to_https(origin, target, may):
    assert may_have_credentials(origin, target) == may


def test_an_address_is_shown_without_whatever_may_be_secret():
    shown = without_credentials("https://ann:p@ss@shop.test:8443/data/raw_items.parquet?token=s3cret#s3cret")
    assert shown == "https://shop.test:8443/data/raw_items.parquet"


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("at https://u:p@host:81/a/b?x=1#y, then", "at https://host:81/a/b then"),
        ("postgresql://u:p@db/x failed", "postgresql://db/x failed"),
        ("http://[broken failed", "(an address) failed"),
        ("password=hunter2 and API_KEY: abc", "password=*** and API_KEY: ***"),
        ('{"token": "abc"}', '{"token": ***'),
        ("the token is gone", "the token is gone"),
    ],
)
def test_what_may_be_a_secret_is_taken_out(text, bare):
    assert without_secrets(text) == bare
