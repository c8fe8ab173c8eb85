"""JSON values with types: what untrusted or pass-through JSON is read with (pure).

Docker's `Config`, `HostConfig` and image configs are passed through with unknown keys kept; these accessors read them
without trusting their shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from lamina.errors import InvalidArgument

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = "dict[str, JsonValue]"

MAX_DEPTH = 64


def parse_object(data: bytes | str, *, what: str = "body", max_bytes: int = 8 << 20) -> JsonObject:
    """Decode a JSON object from untrusted bytes.

    Raises:
        InvalidArgument: too long, not JSON, nested too deeply, a key twice, or not an object.
    """
    if len(data) > max_bytes:
        raise InvalidArgument(f"{what} is larger than {max_bytes} bytes")
    try:
        value: JsonValue = json.loads(data, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidArgument(f"{what} is not a JSON object")
    _check_depth(value, what)
    return value


def _no_duplicates(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _check_depth(value: JsonValue, what: str) -> None:
    level: list[JsonValue] = [value]
    for _ in range(MAX_DEPTH):
        deeper: list[JsonValue] = []
        for item in level:
            if isinstance(item, dict):
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
        if not deeper:
            return
        level = deeper
    raise InvalidArgument(f"{what} is nested deeper than {MAX_DEPTH} levels")


def text(obj: Mapping[str, JsonValue], key: str, default: str = "") -> str:
    """The string at `key`; `default` when missing or null. Raises InvalidArgument when it is something else."""
    value = obj.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise InvalidArgument(f"{key} is not a string")
    return value


def integer(obj: Mapping[str, JsonValue], key: str, default: int = 0) -> int:
    """The whole number at `key`; `default` when missing or null."""
    value = obj.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{key} is not a whole number")
    return value


def boolean(obj: Mapping[str, JsonValue], key: str, *, default: bool = False) -> bool:
    """The truth value at `key`; `default` when missing or null."""
    value = obj.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidArgument(f"{key} is not true or false")
    return value


def mapping(obj: Mapping[str, JsonValue], key: str) -> JsonObject:
    """The object at `key`; empty when missing or null."""
    value = obj.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"{key} is not an object")
    return value


def items(obj: Mapping[str, JsonValue], key: str) -> list[JsonValue]:
    """The list at `key`; empty when missing or null."""
    value = obj.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidArgument(f"{key} is not a list")
    return value


def strings(obj: Mapping[str, JsonValue], key: str) -> list[str]:
    """The list of strings at `key`; empty when missing or null; a lone string counts as a list of one."""
    value = obj.get(key)
    if isinstance(value, str):
        return [value]
    found: list[str] = []
    for item in items(obj, key):
        if not isinstance(item, str):
            raise InvalidArgument(f"{key} holds something that is not a string")
        found.append(item)
    return found


def string_map(obj: Mapping[str, JsonValue], key: str) -> dict[str, str]:
    """The object of strings at `key`; empty when missing or null; null values become empty strings."""
    found: dict[str, str] = {}
    for name, value in mapping(obj, key).items():
        if value is None:
            found[name] = ""
        elif isinstance(value, str):
            found[name] = value
        else:
            raise InvalidArgument(f"{key}.{name} is not a string")
    return found


def objects(obj: Mapping[str, JsonValue], key: str) -> list[JsonObject]:
    """The list of objects at `key`; empty when missing or null."""
    found: list[JsonObject] = []
    for item in items(obj, key):
        if not isinstance(item, dict):
            raise InvalidArgument(f"{key} holds something that is not an object")
        found.append(item)
    return found


def in_known_case(obj: Mapping[str, JsonValue], names: Sequence[str]) -> JsonObject:
    """The object with these keys written as in `names`, however the client wrote them: Go reads keys in any case.

    A key that is there as it should be stays, and hides its other writings.
    """
    known = {name.lower(): name for name in names if name not in obj}
    return {known.get(key.lower(), key): value for key, value in obj.items()}


def from_strings(values: Sequence[str]) -> list[JsonValue]:
    """A list of strings as a JSON list (lists are invariant to the type checker)."""
    return list(values)


_GO_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}

_SURROGATE = re.compile("[\ud800-\udfff]")


def go_json(value: JsonValue) -> bytes:
    """Encode as Go's encoding/json does: no white space, `<`, `>`, `&`, U+2028 and U+2029 escaped, UTF-8.

    Keys come out in the order of the dictionary: the caller decides it. What is no UTF-8 (a file name that was decoded
    with surrogateescape) comes out as U+FFFD, as from Go.
    """
    dumped = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # The five characters can only stand inside strings, so translating the whole text is safe.
    escaped = dumped.translate(_GO_ESCAPES)
    try:
        return escaped.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub(r"\\ufffd", escaped).encode()
