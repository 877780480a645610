"""Artifacts in a bucket of Google Cloud Storage."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from dagster_gcp.gcs import GCSResource
from google.api_core.exceptions import Conflict, NotFound, PreconditionFailed
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from google.resumable_media.common import DataCorruption

from serverless_assets import google_errors
from serverless_assets.artifacts import ArtifactError, StoredFile, refuse_paths

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
}

SERVICE = google_errors.Service(
    "Cloud Storage",
    "storage.googleapis.com",
    "roles/storage.objectUser on the bucket, which SERVERLESS_BUCKET names",
)
# Bucket names are global: one that this account may not see may be somebody else's.
CREATION = replace(
    SERVICE,
    roles="roles/storage.admin on the project, or SERVERLESS_BUCKET another name if it is not your bucket",
    advice={"bucket name is not available": "Set SERVERLESS_BUCKET to another name."},
)


def _is_tried_again(error: BaseException) -> bool:
    # A download that is tried again continues after the bytes that it has, which are damaged.
    return google_errors.transient(error) and not isinstance(error, DataCorruption)


@dataclass(frozen=True)
class GcsArtifacts:
    """See `Artifacts`. A call that Google does not answer is tried again for `patience` seconds.

    `folder` is where in the bucket the files are, and ends in a slash; empty for the bucket itself.
    """

    project: str
    bucket: str
    location: str
    patience: float = google_errors.PATIENCE
    folder: str = ""

    @property
    def name(self) -> str:
        return f"Cloud Storage, gs://{self.bucket}/{self.folder}".rstrip("/")

    @property
    def is_scratch(self) -> bool:
        return bool(self.folder)

    def prepare(self) -> None:
        """The first file that is written creates the bucket: to look for one takes one more permission."""

    def _create_bucket(self) -> None:
        """Create the bucket, as there is none.

        Raises:
            ArtifactError: it cannot be created, or belongs to somebody else.
        """
        with self._client(f"gs://{self.bucket}", CREATION) as client:
            bucket = client.bucket(self.bucket)
            # One list of who may read, for all files.
            bucket.iam_configuration.uniform_bucket_level_access_enabled = True
            try:
                client.create_bucket(bucket, location=self.location, **self._call)
            except Conflict:
                # Another run may have been faster.
                if client.lookup_bucket(self.bucket, **self._call) is None:
                    raise

    def in_folder(self, name: str) -> "GcsArtifacts":
        return replace(self, folder=f"{self.folder}{name}/")

    def write(self, name: str, content: bytes) -> StoredFile:
        refuse_paths(name)
        place = self.place(name)
        with self._client(place.address) as client:
            blob = client.bucket(self.bucket).blob(self.folder + name)
            # The name stays and the content changes: a browser has to ask whether it has the latest.
            blob.cache_control = "no-cache"
            stored = blob.bucket.get_blob(blob.name, **self._call)
            try:
                self._upload(blob, content, stored.generation if stored else 0)
            except NotFound:
                self._create_bucket()
                self._upload(blob, content, 0)
        return place

    def read(self, name: str) -> bytes | None:
        refuse_paths(name)
        with self._client(self.place(name).address) as client:
            try:
                return client.bucket(self.bucket).blob(self.folder + name).download_as_bytes(**self._call)
            except NotFound:
                return None

    def place(self, name: str) -> StoredFile:
        object_name = self.folder + name
        page = f"https://console.cloud.google.com/storage/browser/_details/{self.bucket}/"
        return StoredFile(f"gs://{self.bucket}/{object_name}", page + quote(object_name, safe=""))

    def names(self, prefix: str) -> list[str]:
        with self._client(f"gs://{self.bucket}") as client:
            prefix = self.folder + prefix
            blobs = client.list_blobs(self.bucket, prefix=prefix, delimiter="/", **self._call)
            try:
                return sorted(blob.name.removeprefix(self.folder) for blob in blobs)
            except NotFound:
                # No bucket yet: the first file that is written creates it.
                return []

    def delete(self, name: str) -> None:
        refuse_paths(name)
        with self._client(self.place(name).address) as client, suppress(NotFound):
            client.bucket(self.bucket).delete_blob(self.folder + name, **self._call)

    def clear(self) -> None:
        """Delete every file in the folder; never those of a whole bucket.

        Raises:
            ArtifactError: some are still there.
        """
        if not self.folder:
            raise ArtifactError(f"{self.name} is a whole bucket, and is not cleared")
        with self._client(self.name) as client:
            for blob in client.list_blobs(self.bucket, prefix=self.folder, **self._call):
                with suppress(NotFound):
                    blob.delete(**self._call)

    def check(self) -> str:
        soon = replace(self, patience=google_errors.PATIENCE_OF_A_CHECK)
        with self._client(f"gs://{self.bucket}", CREATION) as client:
            bucket = client.lookup_bucket(self.bucket, **soon._call)
        return f"a bucket in {bucket.location}" if bucket else "no bucket yet: the first run creates it"

    def _upload(self, blob: storage.Blob, content: bytes, generation: int) -> None:
        """Replace just the file that was there a moment ago (generation 0: none)."""
        kind = CONTENT_TYPES.get(PurePath(blob.name).suffix, "application/octet-stream")
        try:
            blob.upload_from_string(content, content_type=kind, if_generation_match=generation, **self._call)
        except PreconditionFailed as error:
            now = blob.bucket.get_blob(blob.name, **self._call)
            if now is None:
                # Somebody has deleted it since.
                self._upload(blob, content, 0)
            # It may be ours: written by a first try whose answer got lost.
            elif now.md5_hash != base64.b64encode(hashlib.md5(content).digest()).decode():
                raise ArtifactError(
                    f"gs://{self.bucket}/{blob.name}: somebody else wrote it meanwhile, and that stays. "
                    "Run again to replace it."
                ) from error

    @property
    def _call(self) -> dict[str, Any]:
        retry = DEFAULT_RETRY.with_predicate(_is_tried_again).with_timeout(self.patience)
        return {"retry": retry, "timeout": 60.0}

    @contextmanager
    def _client(self, subject: str, service: google_errors.Service = SERVICE) -> Iterator[storage.Client]:
        with (
            google_errors.translate_errors(service, subject, ArtifactError),
            closing(GCSResource(project=self.project).get_client()) as client,
        ):
            yield client
