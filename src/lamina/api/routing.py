"""A route and the table it stands in; path templates as the API description writes them (async package, pure)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

from lamina.engine.services import Services
from lamina.errors import InvalidArgument, NotServed
from lamina.http.exchange import Answer, Request
from lamina.jsonvalue import JsonObject, parse_object
from lamina.wire.engine import query
from lamina.wire.engine.versions import OLDEST, Version

MAX_JSON_BYTES = 8 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way to a verb."""

    request: Request
    services: Services
    version: Version
    names: Mapping[str, str]
    """What stands in the path: `id`, `name`."""
    operation: str
    """As the API description names it: what a refusal names."""

    def verb(self, verb: T | None) -> T:
        """The verb, or 501.

        Raises:
            NotServed: this daemon does not have it.
        """
        if verb is None:
            raise not_served(self.operation)
        return verb

    def text(self, key: str, default: str = "") -> str:
        return query.text(self.request.query, key, default)

    def flag(self, key: str, *, default: bool = False) -> bool:
        return query.boolean(self.request.query, key, default=default)

    def number(self, key: str) -> int | None:
        return query.integer(self.request.query, key)

    def time_ns(self, key: str) -> int | None:
        return query.timestamp_ns(self.request.query, key)

    async def json(self, *, required: bool = True) -> JsonObject:
        """The JSON body.

        Raises:
            InvalidArgument: not declared as JSON, or not JSON; or none, when one is required.
            BodyTooLarge: over `MAX_JSON_BYTES`.
        """
        request = self.request
        is_empty = request.content_length == 0
        if not is_empty or required:
            check_json_type(request.headers.get("Content-Type", ""), is_empty=is_empty)
        data = await request.read(MAX_JSON_BYTES)
        if not data.strip():
            if required:
                raise InvalidArgument("invalid JSON: got EOF while reading request body")
            return {}
        if not required and data.strip() == b"null":
            return {}
        return parse_object(data, what="request body", max_bytes=MAX_JSON_BYTES)


Function = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row: how a request is recognised and what answers it."""

    method: str
    path: str
    """`/images/{name}/json`; a `{name}` may hold slashes where image names stand."""
    function: Function
    operation: str
    since: Version = OLDEST
    takes_over: bool = False
    """It may turn the connection into a raw stream."""


class Routes:
    """Finds the row of a request. Rows are tried in the order given; ids match one segment, names many."""

    def __init__(self, rows: Sequence[Route]) -> None:
        self.rows = tuple(rows)
        self._by_head: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for row in rows:
            self._by_head.setdefault((row.method, _head(row.path)), []).append((_pattern(row.path), row))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The row and the names in the path; the path has no version."""
        for pattern, row in self._by_head.get((method, _head(path)), ()):
            found = pattern.fullmatch(path)
            if found:
                return row, found.groupdict()
        return None


def split_version(path: str) -> tuple[str, str]:
    """`/v1.47/info` is version `1.47` and path `/info`; without a version it is empty."""
    found = re.match(r"/v([0-9][0-9.]*)(/.*)", path, re.DOTALL)
    return (found[1], found[2]) if found else ("", path)


def not_served(operation: str) -> NotServed:
    """The refusal that names what was asked for."""
    return NotServed(f"{operation} is not served by Lamina yet")


def check_json_type(content_type: str, *, is_empty: bool) -> None:
    """A body must be declared as JSON: a web page cannot send that without asking first.

    Raises:
        InvalidArgument: another type, or none beside a body.
    """
    if is_empty and not content_type:
        return
    declared = content_type.partition(";")[0].strip().lower()
    if declared != "application/json" and not (is_empty and declared == "text/plain"):
        raise InvalidArgument(
            f"unsupported Content-Type header ({quote(content_type[:100], safe='/;= ')}): must be 'application/json'"
        )


def _head(path: str) -> str:
    return path.split("/", 2)[1] if "/" in path else ""


def _pattern(template: str) -> re.Pattern[str]:
    # Names of images and plugins hold slashes; ids do not.
    parts = re.split(r"\{(\w+)\}", template)
    out = ""
    for at, part in enumerate(parts):
        if at % 2:
            out += (
                rf"(?P<{part}>.+)" if part == "name" and not template.startswith("/volumes") else rf"(?P<{part}>[^/]+)"
            )
        else:
            out += re.escape(part)
    return re.compile(out, re.DOTALL)
