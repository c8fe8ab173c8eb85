"""Errors to registry answers: status and code, the one table (async edge)."""

from __future__ import annotations

from aiohttp import web

from lamina.errors import (
    BlobUnknown,
    DataLoss,
    InvalidArgument,
    InvalidDigest,
    InvalidManifest,
    LaminaError,
    NotFound,
    PermissionDenied,
    StorageFull,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from lamina.jsonvalue import JsonValue
from lamina.wire.registry.codes import Code, encode

_TABLE: dict[type[BaseException], tuple[int, Code]] = {
    InvalidDigest: (400, Code.DIGEST_INVALID),
    InvalidManifest: (400, Code.MANIFEST_INVALID),
    InvalidArgument: (400, Code.NAME_INVALID),
    BlobUnknown: (404, Code.BLOB_UNKNOWN),
    NotFound: (404, Code.NAME_UNKNOWN),
    Unauthenticated: (401, Code.UNAUTHORIZED),
    PermissionDenied: (403, Code.DENIED),
    Unsupported: (405, Code.UNSUPPORTED),
    StorageFull: (507, Code.UNAVAILABLE),
    Unavailable: (503, Code.UNAVAILABLE),
    # What a client sent had another digest or size than it said: its fault, not ours.
    DataLoss: (400, Code.DIGEST_INVALID),
}


class Refused(LaminaError):  # noqa: N818 - named as the tree in lamina.errors names them
    """An answer whose code only the place that refuses can know."""

    def __init__(self, status: int, code: Code, message: str = "", *, detail: JsonValue = None) -> None:
        super().__init__(message or code.value)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers: dict[str, str] = {}


def answer(error: LaminaError) -> web.Response:
    """The response that tells a registry client about `error`."""
    if isinstance(error, Refused):
        body = encode(error.code, error.message, error.detail)
        return web.Response(status=error.status, body=body, headers=_json(error.headers))
    status, code = code_of(error)
    return web.Response(status=status, body=encode(code, error.message), headers=_json({}))


def code_of(error: LaminaError) -> tuple[int, Code]:
    """Status and code of the nearest class in the table."""
    for kind in type(error).__mro__:
        if kind in _TABLE:
            return _TABLE[kind]
    return 500, Code.UNKNOWN


def _json(headers: dict[str, str]) -> dict[str, str]:
    return {"Content-Type": "application/json; charset=utf-8", **headers}
