"""The registry protocol over HTTP: one route, told apart by path and method (async edge)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from aiohttp import web

from lamina.clock import Clock, SystemClock
from lamina.errors import LaminaError
from lamina.registry import blobs, errors, manifests, receive
from lamina.registry.errors import Refused
from lamina.registry.files import RegistryFiles
from lamina.registry.state import STATE, RegistryState
from lamina.registry.uploads import Uploads
from lamina.wire.registry import paths
from lamina.wire.registry.codes import Code
from lamina.wire.registry.paths import Route, Target
from lamina.workers import Workers

Answer: TypeAlias = Callable[[web.Request, Route], Awaitable[web.StreamResponse]]

_ROUTES: dict[Target, dict[str, Answer]] = {
    Target.ROOT: {"GET": manifests.root, "HEAD": manifests.root},
    Target.CATALOG: {"GET": manifests.catalog},
    Target.TAGS: {"GET": manifests.list_tags},
    Target.MANIFEST: {
        "GET": manifests.get,
        "HEAD": manifests.get,
        "PUT": manifests.put,
        "DELETE": manifests.delete,
    },
    Target.BLOB: {"GET": blobs.get, "HEAD": blobs.get, "DELETE": blobs.delete},
    Target.UPLOADS: {"POST": receive.begin},
    Target.UPLOAD: {
        "GET": receive.status,
        "PATCH": receive.patch,
        "PUT": receive.put,
        "DELETE": receive.cancel,
    },
}


async def _edge(request: web.Request) -> web.StreamResponse:
    """Where a request comes in and every error becomes an answer."""
    try:
        answer = await _dispatch(request)
    except LaminaError as error:
        answer = errors.answer(error)
    if not answer.prepared:
        answer.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
    return answer


async def _dispatch(request: web.Request) -> web.StreamResponse:
    route = paths.decode(request.path)
    if route is None:
        raise Refused(404, Code.UNSUPPORTED, f"no such path: {request.path[:200]}")
    answers = _ROUTES[route.target]
    found = answers.get(request.method)
    if found is None:
        refusal = Refused(405, Code.UNSUPPORTED, f"{request.method[:20]} is not served here")
        refusal.headers["Allow"] = ", ".join(sorted(answers))
        raise refusal
    return await found(request, route)


def build_app(root: Path, *, clock: Clock | None = None) -> web.Application:
    """A registry that keeps everything below `root`. Blocks: it makes the directories and sweeps old uploads."""
    files = RegistryFiles(root)
    uploads = Uploads(files, clock or SystemClock())
    uploads.sweep()
    workers = Workers(threads=8)
    app = web.Application(client_max_size=8 << 20)
    app[STATE] = RegistryState(files, uploads, workers)
    app.router.add_route("*", "/{path:.*}", _edge)

    async def close(_: web.Application) -> None:
        workers.close()

    app.on_cleanup.append(close)
    return app
