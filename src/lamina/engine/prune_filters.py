"""Which objects a prune takes: by age and by labels (pure).

Source: moby daemon/prune.go, matchLabels and getUntilFromPruneFilters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lamina.engine.list_images import moment_ns
from lamina.errors import InvalidArgument
from lamina.wire.engine.filters import Filters, check_names

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


@dataclass(frozen=True, slots=True)
class PruneChoice:
    """What may go. No `until_ns`: of any age."""

    until_ns: int | None
    with_labels: tuple[str, ...]
    without_labels: tuple[str, ...]

    def fits(self, created_ns: int, labels: Mapping[str, str]) -> bool:
        """All of `label` must be there; what has all of `label!` stays."""
        if self.until_ns is not None and created_ns > self.until_ns:
            return False
        if not _has_all(labels, self.with_labels):
            return False
        return not self.without_labels or not _has_all(labels, self.without_labels)


def prune_choice(filters: Filters, known: Collection[str], now_ns: int) -> PruneChoice:
    """Read the filters of a prune; `known` are their names.

    Raises:
        InvalidArgument: an unknown name, two times, or a time that is none.
    """
    check_names(filters, known)
    until = filters.get("until", ())
    if len(until) > 1:
        raise InvalidArgument("more than one until filter specified")
    return PruneChoice(
        moment_ns(until[0], now_ns) if until else None,
        tuple(filters.get("label", ())),
        tuple(filters.get("label!", ())),
    )


def flag(filters: Filters, name: str, *, default: bool) -> bool:
    """A filter that is true or false. Raises InvalidArgument for anything else."""
    values = filters.get(name, ())
    if not values:
        return default
    if len(values) > 1 or values[0] not in _TRUE | _FALSE:
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(values)[:80]}]'")
    return values[0] in _TRUE


def _has_all(labels: Mapping[str, str], wanted: Collection[str]) -> bool:
    for one in wanted:
        key, equals, value = one.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
