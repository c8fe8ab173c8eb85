"""Manifests, tags and the catalog (async edge)."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from aiohttp import web

from lamina.errors import InvalidArgument, NotFound
from lamina.jsonvalue import JsonObject, from_strings, go_json
from lamina.oci.digest import Digest, algorithm_of, digest_of, parse_digest
from lamina.oci.manifest import MAX_MANIFEST_BYTES, Document, Index, decode_manifest
from lamina.oci.mediatype import is_foreign_layer
from lamina.registry.errors import Refused
from lamina.registry.files import RegistryFiles
from lamina.registry.state import STATE
from lamina.wire.registry import paths
from lamina.wire.registry.codes import Code
from lamina.wire.registry.paths import MAX_PAGE, Route, is_tag


async def root(_: web.Request, __: Route) -> web.StreamResponse:
    return _json({})


async def get(request: web.Request, route: Route) -> web.StreamResponse:
    """A manifest by tag or digest, byte for byte as it came."""
    state = request.app[STATE]
    try:
        media_type, raw, digest = await state.workers.call(_find, state.files, route)
    except NotFound as error:
        raise Refused(404, Code.MANIFEST_UNKNOWN, detail={"name": route.repository, "tag": route.tail}) from error
    headers = {"Content-Type": media_type, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
    return web.Response(body=raw, headers=headers)


async def put(request: web.Request, route: Route) -> web.StreamResponse:
    """Keep a manifest whose blobs are all here."""
    state = request.app[STATE]
    tag, announced = _reference(route)
    raw = await _body(request)
    media_type = request.headers.get("Content-Type", "")
    document = await state.workers.call(decode_manifest, raw, media_type)
    digest = announced or digest_of(raw)
    if announced and algorithm_of(announced) == "sha256" and announced != digest_of(raw):
        raise Refused(400, Code.DIGEST_INVALID, f"{announced} announced, {digest_of(raw)} received")
    if algorithm_of(digest) != "sha256":
        raise Refused(400, Code.UNSUPPORTED, "manifests are kept by sha256")
    await state.workers.call(_check_references, state.files, route.repository, document)
    await state.workers.call(
        state.files.put_manifest, route.repository, digest, raw, media_type=document.media_type, tag=tag
    )
    headers = {"Location": paths.manifest(route.repository, digest), "Docker-Content-Digest": digest}
    return web.Response(status=201, headers=headers)


async def delete(request: web.Request, route: Route) -> web.StreamResponse:
    """A digest goes with all its tags; a tag goes alone."""
    state = request.app[STATE]
    tag, digest = _reference(route)
    try:
        if digest is not None:
            await state.workers.call(state.files.delete_manifest, route.repository, digest)
        elif tag is not None:
            await state.workers.call(state.files.delete_tag, route.repository, tag)
    except NotFound as error:
        raise Refused(404, Code.MANIFEST_UNKNOWN, error.message) from error
    return web.Response(status=202)


async def list_tags(request: web.Request, route: Route) -> web.StreamResponse:
    state = request.app[STATE]
    tags = await state.workers.call(state.files.tags, route.repository)
    page, headers = _page(request, tags)
    return _json({"name": route.repository, "tags": from_strings(page)}, headers)


async def catalog(request: web.Request, _: Route) -> web.StreamResponse:
    state = request.app[STATE]
    page, headers = _page(request, await state.workers.call(state.files.repositories))
    return _json({"repositories": from_strings(page)}, headers)


def _reference(route: Route) -> tuple[str | None, Digest | None]:
    """(tag, None) or (None, digest)."""
    if ":" in route.tail:
        return None, parse_digest(route.tail)
    if not is_tag(route.tail):
        raise Refused(400, Code.MANIFEST_INVALID, f"{route.tail[:200]!r} is neither a tag nor a digest")
    return route.tail, None


def _find(files: RegistryFiles, route: Route) -> tuple[str, bytes, Digest]:
    tag, digest = _reference(route)
    if digest is None:
        digest = files.tagged(route.repository, tag or "")
    media_type, raw = files.manifest(route.repository, digest)
    return media_type, raw, digest


async def _body(request: web.Request) -> bytes:
    too_large = Refused(413, Code.SIZE_INVALID, f"a manifest has at most {MAX_MANIFEST_BYTES} bytes")
    if (request.content_length or 0) > MAX_MANIFEST_BYTES:
        raise too_large
    raw = bytearray()
    async for chunk in request.content.iter_any():
        raw += chunk
        if len(raw) > MAX_MANIFEST_BYTES:
            raise too_large
    return bytes(raw)


def _check_references(files: RegistryFiles, repository: str, document: Document) -> None:
    if isinstance(document, Index):
        missing = [found.digest for found in document.manifests if not files.has_manifest(repository, found.digest)]
    else:
        wanted = [document.config, *document.layers]
        missing = [
            found.digest
            for found in wanted
            if not (found.urls and is_foreign_layer(found.media_type)) and not files.has_blob(repository, found.digest)
        ]
    if missing:
        detail = from_strings([str(digest) for digest in missing[:20]])
        raise Refused(400, Code.MANIFEST_BLOB_UNKNOWN, f"the manifest names {missing[0]}, never pushed", detail=detail)


def _page(request: web.Request, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The part that `?n=` and `?last=` ask for, and the Link to the next."""
    asked = request.query.get("n", "")
    if asked and not (asked.isascii() and asked.isdigit() and len(asked) < 10):
        raise InvalidArgument("n is not a number")
    last = request.query.get("last", "")
    limit = min(int(asked), MAX_PAGE) if asked else MAX_PAGE
    rest = [name for name in names if not last or name > last]
    page = rest[:limit]
    if not page or len(page) == len(rest):
        return page, {}
    query = urlencode({"last": page[-1], "n": str(limit)})
    return page, {"Link": f'<{request.path}?{query}>; rel="next"'}


def _json(body: JsonObject, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=go_json(body) + b"\n", headers={"Content-Type": "application/json", **(headers or {})})
