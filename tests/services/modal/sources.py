"""Local files that came with a deploy, and the directory a container sees of them."""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from modal_proto import api_pb2

from tests.services.modal.blobs import Blobs
from tests.services.modal.state import derived_id, not_found

IMAGE_BUILDER_VERSION = "2026.10"


class Sources:
    """Files by their SHA-256, mounts as lists of such files, images as what would have been built.

    A container runs what was uploaded, never the working tree: an edit after a deploy must not reach it.
    """

    def __init__(self, directory: Path, blobs: Blobs) -> None:
        self._files = directory / "files"
        self._trees = directory / "trees"
        self._files.mkdir(parents=True, exist_ok=True)
        self._mounts: dict[str, list[api_pb2.MountFile]] = {}
        self._images: set[str] = set()
        self._blobs = blobs
        self.image_builds = 0

    def tree(self, mount_ids: Iterable[str]) -> Path:
        """The root directory that has all files of the mounts, written once per content."""
        files = sorted(
            (file.filename, file.sha256_hex) for mount_id in mount_ids for file in self._mounts[mount_id]
        )
        tree = self._trees / hashlib.sha256(repr(files).encode()).hexdigest()[:16]
        if not tree.exists():
            for name, content in files:
                path = tree.joinpath(*PurePosixPath(name).parts[1:])
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._files / content, path)
            (tree / "root").mkdir(parents=True, exist_ok=True)
        return tree

    async def MountBatchedCheckExistence(
        self, request: api_pb2.MountBatchedCheckExistenceRequest
    ) -> api_pb2.MountBatchedCheckExistenceResponse:
        missing = [digest for digest in request.sha256_hex_hashes if not (self._files / digest).exists()]
        return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    async def MountPutFile(self, request: api_pb2.MountPutFileRequest) -> api_pb2.MountPutFileResponse:
        content = (
            self._blobs.path(request.data_blob_id).read_bytes() if request.data_blob_id else request.data
        )
        digest = hashlib.sha256(content).hexdigest()
        (self._files / digest).write_bytes(content)
        return api_pb2.MountPutFileResponse(exists=digest == request.sha256_hex)

    async def MountGetOrCreate(
        self, request: api_pb2.MountGetOrCreateRequest
    ) -> api_pb2.MountGetOrCreateResponse:
        # The client's own package is a mount that Modal deploys; a container has it from its interpreter.
        content = request.deployment_name.encode() or b"".join(
            file.SerializeToString() for file in sorted(request.files, key=lambda file: file.filename)
        )
        mount_id = derived_id("mo", content)
        self._mounts[mount_id] = list(request.files)
        return api_pb2.MountGetOrCreateResponse(
            mount_id=mount_id,
            handle_metadata=api_pb2.MountHandleMetadata(
                content_checksum_sha256_hex=hashlib.sha256(content).hexdigest()
            ),
        )

    async def ImageGetOrCreate(
        self, request: api_pb2.ImageGetOrCreateRequest
    ) -> api_pb2.ImageGetOrCreateResponse:
        """Built at once: a container's packages are those of the interpreter that runs the server."""
        image_id = derived_id("im", request.image.SerializeToString(deterministic=True))
        if request.force_build or image_id not in self._images:
            self.image_builds += 1
        self._images.add(image_id)
        return api_pb2.ImageGetOrCreateResponse(
            image_id=image_id,
            result=api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS),
            metadata=api_pb2.ImageMetadata(image_builder_version=IMAGE_BUILDER_VERSION),
        )

    async def ImageFromId(self, request: api_pb2.ImageFromIdRequest) -> api_pb2.ImageFromIdResponse:
        if request.image_id not in self._images:
            raise not_found(f"Image '{request.image_id}' not found")
        return api_pb2.ImageFromIdResponse(image_id=request.image_id)
