"""Errors to HTTP status: the one table of the Engine API, and the body that carries the message (async package, pure).

Source: moby daemon/server/httpstatus/status.go.
"""

from __future__ import annotations

from lamina import errors
from lamina.http.exchange import BodyTooLarge, Reply
from lamina.jsonvalue import JsonValue, go_json

STATUS: dict[type[Exception], int] = {
    BodyTooLarge: 413,
    errors.InvalidArgument: 400,
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.NotModified: 304,
    errors.Unsupported: 501,
    errors.NotServed: 501,
    errors.Unavailable: 503,
    errors.CommandNotFound: 400,
    errors.CommandNotExecutable: 400,
    errors.LaminaError: 500,
    Exception: 500,
}


def status_of(error: Exception) -> int:
    """The status of the nearest class in the table."""
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return 500


def message_of(error: Exception) -> str:
    """What the client is told: the sentence and the next command to try; details of inner faults stay in the log."""
    if isinstance(error, errors.LaminaError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        return f"{what}: {error.filename}" if error.filename else what
    return f"internal error: {type(error).__name__}, see the daemon's log"


def error_reply(error: Exception) -> Reply:
    """The error as an answer; a body left unread ends the connection."""
    status = status_of(error)
    if status == 304:
        return Reply(304)
    return json_reply({"message": message_of(error)}, status, close=isinstance(error, BodyTooLarge))


def json_reply(body: JsonValue, status: int = 200, *, close: bool = False) -> Reply:
    """A JSON answer as Docker writes it: compact, with a line end."""
    return Reply(status, go_json(body) + b"\n", [("Content-Type", "application/json")], close)
