"""Paths under `/v2/`, both ways (pure).

Source: distribution-spec spec.md "Endpoints" and "Pull"; the grammar of names and tags is the same for Docker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from lamina.errors import InvalidArgument
from lamina.oci.digest import Digest

MAX_NAME_CHARS = 255
MAX_PAGE = 1000

_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_TAIL = re.compile(r"/v2/(?P<name>.+)/(?P<kind>blobs/uploads|blobs|manifests|tags)/(?P<tail>[^/]*)")


class Target(Enum):
    """What a path under `/v2/` names."""

    ROOT = "root"
    CATALOG = "catalog"
    TAGS = "tags"
    MANIFEST = "manifest"
    BLOB = "blob"
    UPLOADS = "uploads"
    """The place where uploads begin."""
    UPLOAD = "upload"
    """One upload under way."""


@dataclass(frozen=True, slots=True)
class Route:
    """A decoded path. `tail` is the digest, tag or upload id: still to be validated by whoever uses it."""

    target: Target
    repository: str = ""
    tail: str = ""


def decode(path: str) -> Route | None:
    """Say what `path` names; None when it is no path of the protocol.

    Raises:
        InvalidArgument: the repository name breaks the grammar.
    """
    if path in ("/v2", "/v2/"):
        return Route(Target.ROOT)
    if path == "/v2/_catalog":
        return Route(Target.CATALOG)
    found = _TAIL.fullmatch(path)
    if not found:
        return None
    name, kind, tail = found["name"], found["kind"], found["tail"]
    # Uploads may begin without the closing slash.
    if kind == "blobs" and tail == "uploads":
        kind, tail = "blobs/uploads", ""
    check_name(name)
    if kind == "tags":
        return Route(Target.TAGS, name) if tail == "list" else None
    if kind == "manifests":
        return Route(Target.MANIFEST, name, tail) if tail else None
    if kind == "blobs":
        return Route(Target.BLOB, name, tail) if tail else None
    return Route(Target.UPLOAD, name, tail) if tail else Route(Target.UPLOADS, name)


def check_name(name: str) -> str:
    """A repository name that follows the grammar, given back.

    Raises:
        InvalidArgument: it does not.
    """
    if len(name) > MAX_NAME_CHARS or not _NAME.fullmatch(name):
        raise InvalidArgument(f"invalid repository name {name[:MAX_NAME_CHARS]!r}: lower-case words, joined by / . _ -")
    return name


def is_tag(text: str) -> bool:
    """Whether `text` is a tag (and no digest: tags have no colon)."""
    return _TAG.fullmatch(text) is not None


def manifest(repository: str, reference: str) -> str:
    return f"/v2/{repository}/manifests/{reference}"


def blob(repository: str, digest: Digest) -> str:
    return f"/v2/{repository}/blobs/{digest}"


def uploads(repository: str) -> str:
    return f"/v2/{repository}/blobs/uploads/"


def upload(repository: str, upload_id: str) -> str:
    return f"/v2/{repository}/blobs/uploads/{upload_id}"
