"""Digests and the identities built from them (pure).

Source: image-spec descriptor.md "Digests"; config.md "Layer ChainID", "ImageID".
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from lamina.errors import InvalidDigest

Digest = NewType("Digest", str)
"""`sha256:<64 lowercase hex digits>` (sha512 with 128): digest of some bytes. Always validated on the way in."""
DiffId = NewType("DiffId", Digest)
"""Digest of a layer's **uncompressed** tar."""
ChainId = NewType("ChainId", Digest)
"""Identity of a layer with everything below it."""
ImageId = NewType("ImageId", Digest)
"""Digest of an image's config bytes."""

EMPTY_LAYER_DIFF_ID = DiffId(Digest("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"))
"""1,024 zero bytes: the tar of a layer that changes nothing."""

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def parse_digest(text: str) -> Digest:
    """Validate untrusted text.

    Raises:
        InvalidDigest: other algorithm, wrong length, upper-case hex, or anything that is not a digest.
    """
    if not _PATTERN.fullmatch(text):
        raise InvalidDigest(f"invalid digest {text[:200]!r}: expected sha256: and 64 lowercase hex digits")
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    """The sha256 digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def algorithm_of(digest: Digest) -> str:
    """`sha256` or `sha512`: what `hashlib.new` takes."""
    return digest.partition(":")[0]


def hex_of(digest: Digest) -> str:
    """The part after the colon: safe as a file name, because digests are validated."""
    return digest.partition(":")[2]


def chain_id(parent: ChainId | None, diff_id: DiffId) -> ChainId:
    """Identity of the layer `diff_id` on top of `parent` (None: a base layer).

    Source: image-spec config.md "Layer ChainID".
    """
    if parent is None:
        return ChainId(diff_id)
    return ChainId(digest_of(f"{parent} {diff_id}".encode()))


def chain_of(diff_ids: list[DiffId] | tuple[DiffId, ...]) -> tuple[ChainId, ...]:
    """The chain ids of a stack, lowest layer first."""
    chain: list[ChainId] = []
    parent: ChainId | None = None
    for diff_id in diff_ids:
        parent = chain_id(parent, diff_id)
        chain.append(parent)
    return tuple(chain)
