"""Static files: hashed names for ES modules too, served by WhiteNoise without leaving ASGI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from io import BytesIO
from typing import BinaryIO

from asgiref.sync import markcoroutinefunction, sync_to_async
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile
from whitenoise.storage import CompressedManifestStaticFilesStorage

BLOCK_BYTES = 64 * 1024


class ModuleManifestStorage(CompressedManifestStaticFilesStorage):
    """Hashed names, also inside `import` statements, so that every file may be cached for ever."""

    support_js_module_import_aggregation = True


class StaticFilesMiddleware:
    """WhiteNoise as an asynchronous middleware: other requests take no detour through a thread."""

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]]) -> None:
        self._whitenoise = WhiteNoiseMiddleware()
        self._get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        path = request.path_info
        static_file: StaticFile | None = None
        if path.startswith(self._whitenoise.static_prefix):
            if self._whitenoise.autorefresh:
                static_file = await sync_to_async(self._whitenoise.find_file)(path)
            else:
                static_file = self._whitenoise.files.get(path)
        if static_file is None:
            return await self._get_response(request)
        return await self._serve(static_file, request)

    async def _serve(self, static_file: StaticFile, request: HttpRequest) -> HttpResponseBase:
        found = await sync_to_async(static_file.get_response)(request.method, request.META)
        body = _read(found.file or BytesIO())
        response = StreamingHttpResponse(body, status=int(found.status))
        del response["Content-Type"]
        for name, value in found.headers:
            response[name] = value
        return response


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    try:
        while block := await sync_to_async(file.read)(BLOCK_BYTES):
            yield block
    finally:
        file.close()
