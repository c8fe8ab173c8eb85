"""Blobs going out (async edge)."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from lamina.errors import InvalidArgument
from lamina.oci.digest import parse_digest
from lamina.registry.errors import Refused
from lamina.registry.state import STATE
from lamina.wire.registry import ranges
from lamina.wire.registry.codes import Code
from lamina.wire.registry.paths import Route


async def get(request: web.Request, route: Route) -> web.StreamResponse:
    """A blob or the part of it that is asked for; the kernel moves the bytes."""
    state = request.app[STATE]
    digest = parse_digest(route.tail)
    path = await state.workers.call(state.files.blob_path, route.repository, digest)
    if "Range" in request.headers:
        size = await state.workers.call(_size, path)
        try:
            ranges.requested(request.headers["Range"], size)
        except InvalidArgument as error:
            refusal = Refused(416, Code.RANGE_INVALID, error.message)
            refusal.headers["Content-Range"] = f"bytes */{size}"
            raise refusal from error
    headers = {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": digest,
        "Docker-Distribution-Api-Version": "registry/2.0",
        "Cache-Control": "max-age=31536000",
    }
    return web.FileResponse(path, chunk_size=1 << 20, headers=headers)


async def delete(request: web.Request, route: Route) -> web.StreamResponse:
    state = request.app[STATE]
    await state.workers.call(state.files.delete_blob, route.repository, parse_digest(route.tail))
    return web.Response(status=202)


def _size(path: Path) -> int:
    return path.stat().st_size
