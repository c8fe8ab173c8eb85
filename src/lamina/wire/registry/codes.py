"""The error codes of the registry protocol and the body that carries them (pure).

Source: distribution-spec spec.md "Error Codes"; TOOMANYREQUESTS, UNAVAILABLE and RANGE_INVALID as distribution has.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonValue, go_json, objects, parse_object, text

MAX_ERROR_BODY_BYTES = 64 << 10


class Code(Enum):
    """Why a registry refuses. The value is the text that goes with it."""

    BLOB_UNKNOWN = "blob unknown to registry"
    BLOB_UPLOAD_INVALID = "blob upload invalid"
    BLOB_UPLOAD_UNKNOWN = "blob upload unknown to registry"
    DIGEST_INVALID = "provided digest did not match uploaded content"
    MANIFEST_BLOB_UNKNOWN = "manifest references a manifest or blob unknown to registry"
    MANIFEST_INVALID = "manifest invalid"
    MANIFEST_UNKNOWN = "manifest unknown"
    NAME_INVALID = "invalid repository name"
    NAME_UNKNOWN = "repository name not known to registry"
    SIZE_INVALID = "provided length did not match content length"
    UNAUTHORIZED = "authentication required"
    DENIED = "requested access to the resource is denied"
    UNSUPPORTED = "the operation is unsupported"
    TOOMANYREQUESTS = "too many requests"
    RANGE_INVALID = "invalid content range"
    UNAVAILABLE = "the registry cannot do this now"
    UNKNOWN = "unknown error"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One entry of `errors`. `code` is the peer's own text: it may be none of ours."""

    code: str
    message: str


def encode(code: Code, message: str = "", detail: JsonValue = None) -> bytes:
    """The body of an error answer."""
    entry: dict[str, JsonValue] = {"code": code.name, "message": message or code.value}
    if detail is not None:
        entry["detail"] = detail
    return go_json({"errors": [entry]}) + b"\n"


def decode(body: bytes) -> tuple[Refusal, ...]:
    """The refusals in an untrusted error body; empty when it has none that can be read."""
    try:
        answer = parse_object(body, what="error body", max_bytes=MAX_ERROR_BODY_BYTES)
        return tuple(
            Refusal(_printable(text(entry, "code")), _printable(text(entry, "message")))
            for entry in objects(answer, "errors")[:16]
        )
    except InvalidArgument:
        return ()


def _printable(value: str) -> str:
    """A peer's text goes to terminals and logs: no control characters, no endless lines."""
    return "".join(char if char.isprintable() else " " for char in value[:300])
