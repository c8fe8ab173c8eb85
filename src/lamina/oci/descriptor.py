"""Descriptors: media type, digest and size of some bytes kept elsewhere (pure).

Source: image-spec descriptor.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject, integer, mapping, string_map, strings, text
from lamina.oci.digest import Digest, parse_digest
from lamina.oci.platform import Platform, decode_platform

MAX_SIZE = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Names some bytes and says what they are; `size_bytes` is exact."""

    media_type: str
    digest: Digest
    size_bytes: int
    platform: Platform | None = None
    annotations: dict[str, str] = field(default_factory=dict, hash=False)
    urls: tuple[str, ...] = ()
    artifact_type: str = ""

    def as_json(self) -> JsonObject:
        """In the key order of Go's struct."""
        found: JsonObject = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size_bytes}
        if self.urls:
            found["urls"] = list(self.urls)
        if self.annotations:
            found["annotations"] = dict(sorted(self.annotations.items()))
        if self.platform is not None:
            found["platform"] = self.platform.as_json()
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        return found


def decode_descriptor(obj: JsonObject) -> Descriptor:
    """Read a descriptor from untrusted JSON.

    Raises:
        InvalidArgument: a digest of unknown form, no or a negative size, or a field of another type.
    """
    size = integer(obj, "size", -1)
    if not 0 <= size <= MAX_SIZE:
        raise InvalidArgument("a descriptor has no valid size")
    platform = mapping(obj, "platform")
    return Descriptor(
        media_type=text(obj, "mediaType"),
        digest=parse_digest(text(obj, "digest")),
        size_bytes=size,
        platform=decode_platform(platform) if platform else None,
        annotations=string_map(obj, "annotations"),
        urls=tuple(strings(obj, "urls")),
        artifact_type=text(obj, "artifactType"),
    )
