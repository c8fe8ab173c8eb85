"""List images, filtered as `docker images` filters (async).

Source: moby daemon/images/images.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from lamina.clock import Clock
from lamina.errors import InvalidArgument
from lamina.images.describe import SizedLayers, created_ns, labels, summary
from lamina.images.lookup import ImageLookup
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.jsonvalue import JsonObject, integer
from lamina.oci.digest import ImageId
from lamina.oci.reference import Reference
from lamina.wire.engine.filters import Filters, check_names

_FILTERS = frozenset({"dangling", "label", "before", "since", "reference", "until"})
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_UNIT_NS = {"h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3, "µs": 1e3, "ns": 1}

Test = Callable[[ImageId], bool]


@dataclass(frozen=True, slots=True)
class ListImages:
    """The images, newest first."""

    images: ImageStore
    tags: TagStore
    lookup: ImageLookup
    layers: SizedLayers
    clock: Clock

    async def __call__(
        self,
        *,
        all: bool = False,  # noqa: A002 - the API's word
        filters: Filters | None = None,
        shared_size: bool = False,
    ) -> list[JsonObject]:
        """Rows of Docker's `ImageSummary`; without `all`, unnamed images that others were made from are left out.

        Raises:
            InvalidArgument: an unknown filter, or a value that makes no sense.
            NoSuchImage: `before` or `since` names none.
        """
        wanted = filters or {}
        check_names(wanted, _FILTERS)
        dangling = _dangling(wanted)
        tests = [*self._times(wanted), *self._labels(wanted)]
        patterns = tuple(wanted.get("reference", ()))
        rows: list[tuple[int, ImageId, JsonObject]] = []
        for image in self.images.ids():
            if not _passes(image, tests):
                continue
            references = [found for found in self.tags.references(image) if _named(found, patterns)]
            if not self._shown(image, references, dangling=dangling, patterns=patterns, show_all=all):
                continue
            row = summary(image, references, self.images, self.layers)
            rows.append((integer(row, "Created"), image, row))
        rows.sort(key=lambda item: (-item[0], item[1]))
        if shared_size:
            self._share(rows)
        return [row for _, _, row in rows]

    def _shown(
        self,
        image: ImageId,
        references: list[Reference],
        *,
        dangling: bool | None,
        patterns: tuple[str, ...],
        show_all: bool,
    ) -> bool:
        if references:
            has_tag = any(reference.digest is None for reference in references)
            return not (dangling and has_tag)
        if patterns or dangling is False:
            return False
        return show_all or not self.images.children(image)

    def _times(self, wanted: Filters) -> list[Test]:
        tests: list[Test] = []
        for name in wanted.get("before", ()):
            before = self._created(self.lookup.find(name))
            tests.append(lambda image, limit=before: self._created(image) < limit)  # type: ignore[misc] # default argument
        for name in wanted.get("since", ()):
            since = self._created(self.lookup.find(name))
            tests.append(lambda image, limit=since: self._created(image) > limit)  # type: ignore[misc] # default argument
        for text in wanted.get("until", ()):
            until = moment_ns(text, self.clock.now_ns())
            tests.append(lambda image, limit=until: self._created(image) <= limit)  # type: ignore[misc] # default argument
        return tests

    def _labels(self, wanted: Filters) -> list[Test]:
        pairs = [text.partition("=") for text in wanted.get("label", ())]
        if not pairs:
            return []

        def carries(image: ImageId) -> bool:
            found = labels(self.images.get(image))
            return all(key in found and (not equals or found[key] == value) for key, equals, value in pairs)

        return [carries]

    def _created(self, image: ImageId) -> int:
        return created_ns(self.images.get(image).created)

    def _share(self, rows: list[tuple[int, ImageId, JsonObject]]) -> None:
        users: dict[str, int] = {}
        for image in self.images.ids():
            for chain in self.images.get(image).chain_ids:
                users[chain] = users.get(chain, 0) + 1
        for _, image, row in rows:
            chains = self.images.get(image).chain_ids
            row["SharedSize"] = sum(self.layers.get(chain).size_bytes for chain in chains if users[chain] > 1)


def _passes(image: ImageId, tests: list[Test]) -> bool:
    return all(test(image) for test in tests)


def moment_ns(text: str, now_ns: int) -> int:
    """A point in time as filters write it: RFC 3339, seconds since the epoch, or how long ago (`10m`, `1h30m`).

    Raises:
        InvalidArgument: none of these.
    """
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return now_ns - int(sum(float(number) * _UNIT_NS[unit] for number, unit in parts))
    if re.fullmatch(r"\d+(?:\.\d{1,9})?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))
    found = created_ns(text)
    if found == created_ns(""):
        raise InvalidArgument(f"invalid time {text[:100]!r}", hint="write 2024-01-02T15:04:05Z, seconds, or 10m")
    return found


def _dangling(wanted: Filters) -> bool | None:
    found: bool | None = None
    for text in wanted.get("dangling", ()):
        if text not in _TRUE | _FALSE:
            raise InvalidArgument(f"invalid filter 'dangling=[{text}]'")
        found = text in _TRUE
    return found


def _named(reference: Reference, patterns: tuple[str, ...]) -> bool:
    if not patterns:
        return True
    texts = (reference.familiar(), reference.familiar_name)
    return any(_pattern(pattern).fullmatch(text) for pattern in patterns for text in texts)


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> re.Pattern[str]:
    """Go's path.Match as a regular expression: `*` and `?` stop at slashes."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
        elif char == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise InvalidArgument(f"invalid filter 'reference={pattern[:100]}': syntax error in pattern")
            inside = pattern[at:end].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[{inside}]")
            at = end + 1
        elif char == "\\" and at < len(pattern):
            parts.append(re.escape(pattern[at]))
            at += 1
        else:
            parts.append(re.escape(char))
    try:
        return re.compile("".join(parts))
    except re.error as error:
        raise InvalidArgument(f"invalid filter 'reference={pattern[:100]}': {error}") from error
