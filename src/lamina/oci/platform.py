"""Platforms, and which manifest of an index suits one best (pure).

Source: image-spec image-index.md "platform"; containerd platforms (normalisation and fallback order).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from lamina.errors import InvalidArgument, Unsupported
from lamina.jsonvalue import JsonObject, strings, text

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_SYSTEMS = frozenset(
    {"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "js", "linux", "netbsd", "openbsd", "plan9"}
    | {"solaris", "wasip1", "windows"},
)
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv7": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "armv5tel": ("arm", "v5"),
}


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system, a processor architecture (Go's names) and its variant (may be empty)."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def normalised(self) -> Platform:
        """The same with Go's architecture names and without a variant that is the default one."""
        architecture, variant = _ARCHITECTURES.get(
            self.architecture.lower(),
            (self.architecture.lower(), ""),
        )
        variant = (self.variant.lower() or variant).removesuffix("l")
        if variant.isdigit():
            variant = f"v{variant}"
        if (architecture, variant) in {("amd64", "v1"), ("arm64", "v8")}:
            variant = ""
        if architecture == "arm" and not variant:
            variant = "v7"
        return Platform(self.os.lower(), architecture, variant, self.os_version, self.os_features)

    def as_json(self) -> JsonObject:
        """As in a descriptor."""
        found: JsonObject = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            found["os.version"] = self.os_version
        if self.os_features:
            found["os.features"] = list(self.os_features)
        if self.variant:
            found["variant"] = self.variant
        return found

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class HasPlatform(Protocol):
    """What `choose` chooses from: descriptors."""

    @property
    def platform(self) -> Platform | None: ...


Choice = TypeVar("Choice", bound=HasPlatform)


def parse(specifier: str, *, default: Platform | None = None) -> Platform:
    """Read `os/arch[/variant]`; one part alone is an os or an architecture, the rest is taken from `default`.

    Raises:
        InvalidArgument: not of this form.
    """
    parts = specifier.split("/")
    if not 1 <= len(parts) <= 3 or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidArgument(
            f"invalid platform {specifier[:200]!r}: expected os/arch or os/arch/variant",
            hint="for example linux/amd64 or linux/arm/v7",
        )
    if len(parts) > 1:
        return Platform(parts[0], parts[1], parts[2] if len(parts) == 3 else "").normalised()
    base = default or Platform("linux", "amd64")
    if parts[0].lower() in _SYSTEMS:
        return Platform(parts[0].lower(), base.architecture, base.variant).normalised()
    return Platform(base.os, parts[0]).normalised()


def host_platform(machine: str) -> Platform:
    """The platform of a Linux host whose uname says `machine`."""
    return Platform("linux", machine).normalised()


def decode_platform(obj: JsonObject) -> Platform:
    """The `platform` of a descriptor. Raises InvalidArgument."""
    return Platform(
        os=text(obj, "os"),
        architecture=text(obj, "architecture"),
        variant=text(obj, "variant"),
        os_version=text(obj, "os.version"),
        os_features=tuple(strings(obj, "os.features")),
    )


def matches(wanted: Platform, found: Platform) -> bool:
    """Whether an image for `found` runs where `wanted` was asked for."""
    return _rank(wanted, found) is not None


def choose(descriptors: Sequence[Choice], wanted: Platform) -> Choice:
    """The descriptor that suits best: an exact match, then what the processor can run too; the first of equals.

    A lone descriptor without platform is taken as suiting.

    Raises:
        Unsupported: none suits; the message lists what there is.
    """
    ranked: list[tuple[int, int]] = []
    for index, descriptor in enumerate(descriptors):
        rank = None if descriptor.platform is None else _rank(wanted, descriptor.platform)
        if rank is not None:
            ranked.append((rank, index))
    if ranked:
        return descriptors[min(ranked)[1]]
    if len(descriptors) == 1 and descriptors[0].platform is None:
        return descriptors[0]
    there = sorted({str(found.platform) for found in descriptors if found.platform and found.platform.os != "unknown"})
    raise Unsupported(
        f"no matching manifest for {wanted} in the manifest list entries",
        hint=f"there is: {', '.join(there[:20]) or 'none'}",
    )


def _rank(wanted: Platform, found: Platform) -> int | None:
    wanted, found = wanted.normalised(), found.normalised()
    if wanted.os != found.os:
        return None
    try:
        return _runnable(wanted).index((found.architecture, found.variant))
    except ValueError:
        return None


def _runnable(wanted: Platform) -> list[tuple[str, str]]:
    """(architecture, variant) that `wanted` runs, best first."""
    if wanted.architecture == "amd64":
        return [("amd64", variant) for variant in _lower(wanted.variant, 2, base="")] + [("386", "")]
    if wanted.architecture == "arm":
        return [("arm", variant) for variant in _lower(wanted.variant, 5)]
    if wanted.architecture == "arm64":
        variants = [wanted.variant, ""] if wanted.variant else [""]
        return [("arm64", variant) for variant in variants] + [("arm", f"v{level}") for level in (8, 7, 6, 5)]
    return list(dict.fromkeys([(wanted.architecture, wanted.variant), (wanted.architecture, "")]))


def _lower(variant: str, least: int, *, base: str | None = None) -> list[str]:
    levels = [variant]
    number = variant.removeprefix("v")
    if variant and number.isdigit() and len(number) < 3:
        levels += [f"v{level}" for level in range(int(number) - 1, least - 1, -1)]
    if base is not None and base not in levels:
        levels.append(base)
    return levels
