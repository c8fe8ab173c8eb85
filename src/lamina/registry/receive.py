"""Blobs coming in: uploads at once, in chunks, and mounts from another repository (async edge).

Source: distribution-spec spec.md "Pushing blobs".
"""

from __future__ import annotations

from aiohttp import web

from lamina.errors import InvalidArgument, InvalidDigest, NotFound, SizeMismatch
from lamina.oci.digest import Digest, parse_digest
from lamina.registry.errors import Refused
from lamina.registry.state import STATE, RegistryState
from lamina.wire.registry import paths, ranges
from lamina.wire.registry.codes import Code
from lamina.wire.registry.paths import Route

_WRITE_BYTES = 1 << 20


async def begin(request: web.Request, route: Route) -> web.StreamResponse:
    """Begin an upload; or end it at once with `?digest=`, or avoid it with `?mount=`."""
    state = request.app[STATE]
    query = request.query
    if "mount" in query:
        digest = parse_digest(query["mount"])
        if await _mounted(state, route.repository, digest, query.get("from", "")):
            return _created(route.repository, digest)
    upload_id = await state.workers.call(state.uploads.begin, route.repository)
    if "digest" in query and "mount" not in query:
        async with state.workers.holding(upload_id):
            return await _finish(request, route.repository, upload_id)
    return _accepted(route.repository, upload_id, 0)


async def _mounted(state: RegistryState, repository: str, digest: Digest, source: str) -> bool:
    if not source:
        return False
    try:
        paths.check_name(source)
    except InvalidArgument:
        return False
    return await state.workers.call(state.files.mount_blob, repository, digest, source)


async def status(request: web.Request, route: Route) -> web.StreamResponse:
    state = request.app[STATE]
    offset = await _offset(state, route)
    return web.Response(status=204, headers=_progress(route.repository, route.tail, offset))


async def patch(request: web.Request, route: Route) -> web.StreamResponse:
    """Append a chunk. A chunk with a range must begin where the last one ended."""
    state = request.app[STATE]
    async with state.workers.holding(route.tail):
        offset = await _offset(state, route)
        expected = _check_range(request, route, offset)
        offset = await _receive(request, state, route.tail, offset)
        if expected is not None and offset != expected:
            raise Refused(400, Code.SIZE_INVALID, f"the chunk ends at {offset}, its range at {expected}")
    return _accepted(route.repository, route.tail, offset)


async def put(request: web.Request, route: Route) -> web.StreamResponse:
    """Append what is left, and finish."""
    state = request.app[STATE]
    async with state.workers.holding(route.tail):
        offset = await _offset(state, route)
        _check_range(request, route, offset)
        return await _finish(request, route.repository, route.tail)


async def cancel(request: web.Request, route: Route) -> web.StreamResponse:
    state = request.app[STATE]
    async with state.workers.holding(route.tail):
        await _offset(state, route)
        await state.workers.call(state.uploads.cancel, route.tail)
    return web.Response(status=204)


async def _finish(request: web.Request, repository: str, upload_id: str) -> web.Response:
    state = request.app[STATE]
    announced = request.query.get("digest")
    if announced is None:
        raise InvalidDigest("the upload cannot be finished without ?digest=")
    digest = parse_digest(announced)
    offset = await state.workers.call(state.uploads.offset, repository, upload_id)
    await _receive(request, state, upload_id, offset)
    await state.workers.call(state.uploads.finish, repository, upload_id, digest)
    return _created(repository, digest)


async def _receive(request: web.Request, state: RegistryState, upload_id: str, offset: int) -> int:
    """Append the body. A client that goes away leaves what it has sent: it may come back and go on."""
    start = offset
    pending = bytearray()
    async for chunk in request.content.iter_any():
        pending += chunk
        if len(pending) >= _WRITE_BYTES:
            offset = await state.workers.call(state.uploads.append, upload_id, bytes(pending))
            pending.clear()
    if pending:
        offset = await state.workers.call(state.uploads.append, upload_id, bytes(pending))
    if request.content_length is not None and offset - start != request.content_length:
        raise SizeMismatch(f"{request.content_length} bytes announced, {offset - start} received")
    return offset


async def _offset(state: RegistryState, route: Route) -> int:
    try:
        return await state.workers.call(state.uploads.offset, route.repository, route.tail)
    except NotFound as error:
        raise Refused(404, Code.BLOB_UPLOAD_UNKNOWN) from error


def _check_range(request: web.Request, route: Route, offset: int) -> int | None:
    """Where the chunk will end, when it says so."""
    header = request.headers.get("Content-Range")
    if header is None:
        return None
    try:
        span = ranges.chunk(header)
    except InvalidArgument as error:
        raise Refused(416, Code.RANGE_INVALID, error.message) from error
    if span.start != offset:
        refusal = Refused(416, Code.RANGE_INVALID, f"the chunk begins at {span.start}, the upload has {offset} bytes")
        refusal.headers.update(_progress(route.repository, route.tail, offset))
        raise refusal
    if request.content_length is not None and request.content_length != span.size_bytes:
        raise Refused(400, Code.SIZE_INVALID, "the chunk's range and its length differ")
    return span.end


def _progress(repository: str, upload_id: str, offset: int) -> dict[str, str]:
    return {
        "Location": paths.upload(repository, upload_id),
        "Docker-Upload-UUID": upload_id,
        "Range": ranges.received(offset),
    }


def _accepted(repository: str, upload_id: str, offset: int) -> web.Response:
    return web.Response(status=202, headers=_progress(repository, upload_id, offset))


def _created(repository: str, digest: Digest) -> web.Response:
    headers = {"Location": paths.blob(repository, digest), "Docker-Content-Digest": digest}
    return web.Response(status=201, headers=headers)
