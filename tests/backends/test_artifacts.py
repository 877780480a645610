"""What every artifact store promises."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest
from google.cloud import storage

from serverless_assets.artifacts import ArtifactError
from serverless_assets.artifacts.gcs import GcsArtifacts
from serverless_assets.artifacts.url import UrlArtifacts
from tests.backends.conftest import Backend, Google
from tests.services.bigquery import PROJECT
from tests.services.process import free_port
from tests.services.proxy import Answer, Asked, Proxy, proxy

DENIED = Answer.error(
    403, "forbidden", "robot@example.com does not have storage.objects.get access to the object."
)


@pytest.fixture(
    params=[
        "local",
        "url",
        pytest.param("gcp", marks=pytest.mark.gcp),
        pytest.param("live", marks=pytest.mark.live),
    ]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    """A backend with each store. Two of them have the same warehouse, which other tests need once."""
    name = "local" if request.param == "url" else request.param
    backend: Backend = request.getfixturevalue(f"{name}_backend")
    if request.param != "url":
        return backend
    store = UrlArtifacts(f"memory://{uuid4().hex}")
    store.prepare()
    return replace(backend, artifacts=store)


def test_a_file_is_read_as_it_was_written(backend: Backend) -> None:
    content = bytes(range(256)) * 40
    backend.artifacts.write(backend.name("a.parquet"), content)
    assert backend.artifacts.read(backend.name("a.parquet")) == content


def test_a_file_is_replaced_whole(backend: Backend) -> None:
    backend.artifacts.write(backend.name("a.html"), b"the first and longer one")
    backend.artifacts.write(backend.name("a.html"), b"second")
    assert backend.artifacts.read(backend.name("a.html")) == b"second"


def test_writing_the_same_again_is_no_conflict(backend: Backend) -> None:
    for _ in range(2):
        place = backend.artifacts.write(backend.name("a.html"), b"same")
        assert place.address.endswith(backend.name("a.html"))
    assert backend.artifacts.read(backend.name("a.html")) == b"same"


def test_an_empty_file_is_a_file(backend: Backend) -> None:
    backend.artifacts.write(backend.name("empty"), b"")
    assert backend.artifacts.read(backend.name("empty")) == b""


def test_a_file_that_is_not_there_is_none(backend: Backend) -> None:
    assert backend.artifacts.read(backend.name("nowhere.html")) is None


def test_names_may_be_awkward(backend: Backend) -> None:
    name = backend.name("my report #1 50% ünï 😀?.html")
    backend.artifacts.write(name, b"awkward")
    assert backend.artifacts.read(name) == b"awkward"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a", "a\\b", "a\nb", "a\0b"])
def test_what_is_not_a_plain_name_is_refused(backend: Backend, name: str) -> None:
    with pytest.raises(ArtifactError, match="not a plain file name"):
        backend.artifacts.write(name, b"")
    with pytest.raises(ArtifactError, match="not a plain file name"):
        backend.artifacts.read(name)


@dataclass(frozen=True)
class Watched:
    """A store all of whose calls go through `proxy`, and the same bucket seen directly."""

    artifacts: GcsArtifacts
    proxy: Proxy
    bucket: storage.Bucket


@pytest.fixture
def watched(gcp_backend: Backend, google: Google, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    artifacts = gcp_backend.artifacts
    assert isinstance(artifacts, GcsArtifacts)
    with closing(storage.Client(PROJECT)) as client, proxy(google.gcs.url) as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        yield Watched(artifacts, running, client.bucket(artifacts.bucket))


def is_upload(request: Asked) -> bool:
    return request.method == "POST" and request.path.startswith("/upload/")


@pytest.mark.gcp
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("forecast.html", "text/html; charset=utf-8"),
        ("forecast.parquet", "application/vnd.apache.parquet"),
        ("manifest.json", "application/json"),
        ("forecast", "application/octet-stream"),
    ],
)
def test_a_file_is_served_as_what_it_is_and_never_stale(watched: Watched, name: str, kind: str) -> None:
    for _ in range(2):
        watched.artifacts.write(name, b"content")
        blob = watched.bucket.get_blob(name)
        assert (blob.content_type, blob.cache_control) == (kind, "no-cache")


@pytest.mark.gcp
def test_a_place_leads_to_the_file_in_the_console(watched: Watched) -> None:
    place = watched.artifacts.write("a b#1.html", b"")
    bucket = watched.artifacts.bucket
    assert place.address == f"gs://{bucket}/a b#1.html"
    assert place.link == f"https://console.cloud.google.com/storage/browser/_details/{bucket}/a%20b%231.html"


@pytest.mark.gcp
@pytest.mark.parametrize("before", [None, b"before"], ids=["a new file", "a file that was there"])
def test_the_second_of_two_writers_overwrites_nothing(watched: Watched, before: bytes | None) -> None:
    if before is not None:
        watched.artifacts.write("a.html", before)

    def another_writer(request: Asked) -> None:
        if is_upload(request):
            watched.bucket.blob("a.html").upload_from_string(b"theirs")

    watched.proxy.instead = another_writer
    with pytest.raises(ArtifactError, match=r"a\.html: somebody else wrote it meanwhile.*Run again"):
        watched.artifacts.write("a.html", b"ours")
    watched.proxy.instead = lambda request: None
    assert watched.artifacts.read("a.html") == b"theirs"


@pytest.mark.gcp
def test_a_file_that_somebody_deletes_during_a_write_is_written(watched: Watched) -> None:
    watched.artifacts.write("a.html", b"before")

    def deleting(request: Asked) -> None:
        if is_upload(request) and watched.bucket.get_blob("a.html"):
            watched.bucket.delete_blob("a.html")

    watched.proxy.instead = deleting
    watched.artifacts.write("a.html", b"ours")
    assert watched.artifacts.read("a.html") == b"ours"
    # To create a bucket takes a role that a run does not need.
    assert watched.proxy.find("POST", "/storage/v1/b?") == []


@pytest.mark.gcp
def test_a_file_that_arrives_cut_is_read_to_its_end_and_a_damaged_one_is_refused(watched: Watched) -> None:
    content = bytes(range(256)) * 40
    watched.artifacts.write("a.parquet", content)
    cut: list[Asked] = []

    def cut_once(request: Asked, body: bytes) -> bytes:
        if "alt=media" not in request.path or cut:
            return body
        cut.append(request)
        return body[:1000]

    watched.proxy.damage = cut_once
    assert watched.artifacts.read("a.parquet") == content
    assert cut
    watched.proxy.damage = lambda request, body: b"x" + body[1:] if "alt=media" in request.path else body
    with pytest.raises(ArtifactError, match=r"a\.parquet: a file was damaged on its way") as told:
        watched.artifacts.read("a.parquet")
    assert told.value.transient


@pytest.mark.gcp
def test_a_write_whose_answer_got_lost_is_no_conflict(watched: Watched) -> None:
    lost = []

    def instead(request: Asked) -> Answer | None:
        if not is_upload(request) or lost:
            return None
        lost.append(request)
        watched.bucket.blob("a.html").upload_from_string(b"ours")
        return Answer.error(503, "backendError", "Try again.")

    watched.proxy.instead = instead
    watched.artifacts.write("a.html", b"ours")
    assert watched.artifacts.read("a.html") == b"ours"
    assert len([request for request in watched.proxy.asked if is_upload(request)]) == 2


@pytest.mark.gcp
def test_a_missing_bucket_is_created_for_this_project_alone(watched: Watched) -> None:
    artifacts = replace(watched.artifacts, bucket=f"new-{uuid4().hex}")
    artifacts.prepare()
    assert (artifacts.names(""), artifacts.read("a.html")) == ([], None)
    for content in (b"first", b"second"):
        artifacts.write("a.html", content)
    (created,) = watched.proxy.find("POST", "/storage/v1/b?")
    assert f"project={PROJECT}" in created.path
    assert created.json["location"] == "EU"
    assert created.json["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"] is True
    # To look at a bucket takes a permission that a run does not need.
    assert watched.proxy.find("GET", f"/b/{artifacts.bucket}?") == []
    assert artifacts.read("a.html") == b"second"


@pytest.mark.gcp
def test_what_there_is_is_told_without_changing_anything(watched: Watched) -> None:
    assert watched.artifacts.name == f"Cloud Storage, gs://{watched.artifacts.bucket}"
    # The emulator has all its buckets in one place.
    assert watched.artifacts.check() == "a bucket in US-CENTRAL1"
    missing = replace(watched.artifacts, bucket=f"new-{uuid4().hex}")
    assert missing.check() == "no bucket yet: the first run creates it"
    assert {request.method for request in watched.proxy.asked} == {"GET"}


NO_BUCKET = Answer.error(404, "notFound", "The specified bucket does not exist.")
TAKEN = "The requested bucket name is not available. Please select a different name and try again."


def creating(found: Answer | None, message: str = TAKEN) -> Callable[[Asked], Answer | None]:
    """There is no bucket to write to, and none can be created; `found` is what somebody sees who looks."""

    def instead(request: Asked) -> Answer | None:
        if request.method == "POST" and request.path.startswith("/storage/v1/b?"):
            return Answer.error(409, "conflict", message)
        return NO_BUCKET if is_upload(request) or "/o/" in request.path else found

    return instead


@pytest.mark.gcp
def test_a_bucket_that_another_run_has_just_made_will_do(watched: Watched) -> None:
    create = creating(None)
    watched.proxy.instead = lambda request: (
        None if watched.proxy.find("GET", f"/b/{watched.artifacts.bucket}?") else create(request)
    )
    watched.artifacts.write("a.html", b"content")
    assert len(watched.proxy.find("POST", "/storage/v1/b?")) == 1
    assert watched.artifacts.read("a.html") == b"content"


@pytest.mark.gcp
def test_a_bucket_of_somebody_else_is_told_with_what_to_do(watched: Watched) -> None:
    message = "robot@example.com does not have storage.buckets.get access to the Google Cloud Storage bucket."
    watched.proxy.instead = creating(Answer.error(403, "forbidden", message))
    with pytest.raises(
        ArtifactError, match=r"gs://bucket-.*storage\.buckets\.get.*SERVERLESS_BUCKET another"
    ):
        watched.artifacts.write("a.html", b"")


@pytest.mark.gcp
def test_a_name_that_is_taken_is_told_with_what_to_do(watched: Watched) -> None:
    watched.proxy.instead = creating(NO_BUCKET)
    with pytest.raises(ArtifactError, match=r"not available.*Set SERVERLESS_BUCKET to another name"):
        watched.artifacts.write("a.html", b"")


@pytest.mark.gcp
def test_what_is_forbidden_is_told_with_the_role_that_may(watched: Watched) -> None:
    told = r"gs://.*/a\.html: Cloud Storage refused: robot.*roles/storage\.objectUser on the bucket"
    watched.proxy.instead = lambda request: DENIED
    with pytest.raises(ArtifactError, match=told):
        watched.artifacts.read("a.html")
    with pytest.raises(ArtifactError, match=told):
        watched.artifacts.write("a.html", b"")
    watched.proxy.instead = lambda request: DENIED if is_upload(request) else None
    with pytest.raises(ArtifactError, match=told):
        watched.artifacts.write("a.html", b"")
    assert len([request for request in watched.proxy.asked if is_upload(request)]) == 1


@pytest.mark.gcp
def test_an_unreachable_store_is_told_within_seconds(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    artifacts = replace(watched.artifacts, patience=0.5)
    with pytest.raises(ArtifactError, match=f"127.0.0.1:{port} cannot be reached"):
        artifacts.write("a.html", b"")
    with pytest.raises(ArtifactError, match=f"127.0.0.1:{port} cannot be reached"):
        artifacts.read("a.html")


def test_files_are_listed_by_how_their_names_begin_and_deleted_by_name(backend: Backend) -> None:
    names = [backend.name(name) for name in ("a-2.json", "a-1.json", "b.json")]
    for name in names:
        backend.artifacts.write(name, b"{}")
    assert backend.artifacts.names(backend.name("a-")) == sorted(names[:2])
    backend.artifacts.delete(names[0])
    assert backend.artifacts.names(backend.name("a-")) == [names[1]]
    assert backend.artifacts.read(names[0]) is None
    # Whoever deletes it again has it gone as well.
    backend.artifacts.delete(names[0])
    assert backend.artifacts.names(backend.name("nothing-begins-so")) == []


def test_a_files_place_is_known_without_writing_it(backend: Backend) -> None:
    name = backend.name("a.html")
    place = backend.artifacts.place(name)
    assert backend.artifacts.read(name) is None
    assert backend.artifacts.write(name, b"a") == place
