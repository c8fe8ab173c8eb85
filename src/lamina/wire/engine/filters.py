"""The `filters` query parameter (pure).

Two JSON forms exist: lists, `{"label": ["a=b"]}`, and the older maps, `{"label": {"a=b": true}}`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeAlias

from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonValue, parse_object

Filters: TypeAlias = Mapping[str, tuple[str, ...]]
"""Filter name to its values; one of the values of each name has to match."""


def parse_filters(text: str) -> dict[str, tuple[str, ...]]:
    """Decode either form; no text means no filters.

    Raises:
        InvalidArgument: neither form.
    """
    if not text:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for name, values in parse_object(text, what="filters", max_bytes=1 << 20).items():
        chosen = _values(values)
        if chosen:
            found[name] = chosen
    return found


def check_names(filters: Filters, known: Collection[str]) -> None:
    """Refuse a filter that nothing understands, in Docker's words.

    Raises:
        InvalidArgument: a name is not in `known`.
    """
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'")


def _values(values: JsonValue) -> tuple[str, ...]:
    if isinstance(values, dict):
        if not all(isinstance(chosen, bool) for chosen in values.values()):
            raise InvalidArgument("invalid filters: expected true or false beside each value")
        return tuple(value for value, chosen in values.items() if chosen)
    if isinstance(values, list):
        texts = tuple(value for value in values if isinstance(value, str))
        if len(texts) != len(values):
            raise InvalidArgument("invalid filters: expected a list of strings")
        return texts
    if values is None:
        return ()
    raise InvalidArgument("invalid filters: expected lists or maps of values")
