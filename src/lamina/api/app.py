"""The Engine API as one application: version, route, verb, answer (async)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lamina.api.errors import error_reply, json_reply, status_of
from lamina.api.routes import table
from lamina.api.routing import Call, Route, Routes, split_version
from lamina.engine.services import Services
from lamina.errors import InvalidArgument, LaminaError
from lamina.http.exchange import Answer, Reply, Request, Stream, Via, split_target
from lamina.http.guard import check_tcp
from lamina.http.hijack import Sent
from lamina.wire.engine.versions import NEWEST, negotiate

_log = logging.getLogger("lamina.api")


class EngineApi:
    """Answers requests by calling verbs."""

    def __init__(self, services: Services, engine_version: str, rows: Sequence[Route]) -> None:
        self._services = services
        self._routes = Routes(rows)
        self._common = [
            ("Api-Version", str(NEWEST)),
            ("Ostype", "linux"),
            ("Server", f"Lamina/{engine_version} (linux)"),
        ]

    def takes_over(self, method: str, target: str) -> bool:
        if method != "POST":
            return False
        try:
            path, _ = split_target(target)
        except InvalidArgument:
            return False
        found = self._routes.find(method, split_version(path)[1])
        return found is not None and found[0].takes_over

    async def __call__(self, request: Request) -> Answer:
        request.common_headers = self._common
        try:
            answer = await self._dispatch(request)
        except Exception as error:  # noqa: BLE001 (the request boundary)
            answer = self._failed(request, error)
        if isinstance(answer, Sent):
            return answer
        body = b"" if request.method == "HEAD" else answer.body
        return Reply(answer.status, body, [*self._common, *answer.headers], answer.close)

    async def _dispatch(self, request: Request) -> Answer:
        if request.via is not Via.UNIX:
            check_tcp(request.headers, tls=request.via is Via.TLS)
        asked, path = split_version(request.path)
        found = self._routes.find(request.method, path)
        if found is None:
            return json_reply({"message": "page not found"}, 404, close=request.content_length != 0)
        version = negotiate(asked)
        row, names = found
        if version < row.since:
            raise InvalidArgument(
                f"{row.operation} requires API version {row.since}, but the client asked for {version}"
            )
        _log.debug("%s %s: %s", request.method, request.path, row.operation)
        return await row.function(Call(request, self._services, version, names, row.operation))

    def _failed(self, request: Request, error: Exception) -> Answer:
        if isinstance(error, ConnectionError):
            raise error  # the client is gone: nobody to tell
        if status_of(error) == 500:
            expected = isinstance(error, LaminaError)
            _log.error("%s %s: %s", request.method, request.path, error, exc_info=None if expected else error)
        begun = request.begun
        if isinstance(begun, Stream):
            begun.abort()
        return begun or error_reply(error)


def build_app(services: Services, engine_version: str) -> EngineApi:
    """The application that the daemon serves."""
    return EngineApi(services, engine_version, table.ROWS)
