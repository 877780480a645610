"""Payloads too large for a message: an object store over HTTP, as the client expects S3 to be."""

import hashlib
from pathlib import Path

from aiohttp import web
from modal_proto import api_pb2

from tests.services.modal.state import new_id, not_found


class Blobs:
    """One file per blob. Uploads are single PUTs whatever the size."""

    def __init__(self, directory: Path, http_url: str) -> None:
        self._directory = directory
        self._directory.mkdir(parents=True, exist_ok=True)
        self._http_url = http_url

    def routes(self) -> list[web.RouteDef]:
        return [web.put("/blobs/{id}", self._put), web.get("/blobs/{id}", self._get)]

    def path(self, blob_id: str) -> Path:
        path = self._directory / blob_id
        if not path.is_file():
            raise not_found(f"Blob '{blob_id}' not found")
        return path

    def _url(self, blob_id: str) -> str:
        return f"{self._http_url}/blobs/{blob_id}"

    async def BlobCreate(self, request: api_pb2.BlobCreateRequest) -> api_pb2.BlobCreateResponse:
        blob_id = new_id("bl")
        (self._directory / blob_id).touch()
        url = self._url(blob_id)
        return api_pb2.BlobCreateResponse(
            blob_id=blob_id,
            blob_ids=[blob_id],
            upload_url=url,
            upload_urls=api_pb2.UploadUrlList(items=[url]),
        )

    async def BlobGet(self, request: api_pb2.BlobGetRequest) -> api_pb2.BlobGetResponse:
        self.path(request.blob_id)
        return api_pb2.BlobGetResponse(download_url=self._url(request.blob_id))

    async def _put(self, request: web.Request) -> web.Response:
        checksum = hashlib.md5()
        path = self._directory / request.match_info["id"]
        if not path.exists():
            raise web.HTTPNotFound
        with path.open("wb") as file:
            async for chunk in request.content.iter_chunked(1 << 20):
                checksum.update(chunk)
                file.write(chunk)
        # The client compares this with the checksum of what it sent.
        return web.Response(headers={"ETag": f'"{checksum.hexdigest()}"'})

    async def _get(self, request: web.Request) -> web.FileResponse:
        path = self._directory / request.match_info["id"]
        if not path.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(path)
