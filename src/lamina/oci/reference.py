"""Image references: what a user types, and the one normal form of it (pure).

Source: distribution/reference grammar and Docker's normalisation: a name without a registry means `docker.io`, a
one-part name there means `library/<name>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lamina.errors import InvalidDigest, InvalidReference
from lamina.oci.digest import Digest, parse_digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME = 255

_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = rf"{_PART}(?:/{_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_REFERENCE = re.compile(rf"(?:({_DOMAIN})/)?({_PATH})(?::({_TAG}))?(?:@([^@]+))?")
_TAG_ONLY = re.compile(_TAG)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised reference.

    `domain` is never empty (`docker.io` when none was given); `path` has the `library/` of official images.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """The whole name, `docker.io/library/redis`."""
        return f"{self.domain}/{self.path}"

    @property
    def repository_path(self) -> str:
        """The name as the registry knows it, `library/redis`."""
        return self.path

    @property
    def familiar_name(self) -> str:
        """The name as people write it, `redis`; it parses back to this name."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        head, _, rest = self.path.partition("/")
        if head == _OFFICIAL and rest and "/" not in rest:
            return rest
        if not rest or _names_a_registry(head):
            return self.name
        return self.path

    def familiar(self) -> str:
        """The reference as people write it, `redis:7`."""
        return f"{self.familiar_name}{self._suffix()}"

    def with_default_tag(self) -> Reference:
        """The same with tag `latest` when there is neither tag nor digest."""
        if self.tag is not None or self.digest is not None:
            return self
        return replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """The same name with this tag and no digest. Raises InvalidReference."""
        return replace(self, tag=check_tag(tag), digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        """The same name with this digest and no tag."""
        return replace(self, tag=None, digest=digest)

    def without_suffix(self) -> Reference:
        """The name alone."""
        return replace(self, tag=None, digest=None)

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{tag}{digest}"

    def __str__(self) -> str:
        return f"{self.name}{self._suffix()}"


def parse_reference(text: str) -> Reference:
    """Read what a user typed; no tag is added.

    Raises:
        InvalidReference: the text breaks the grammar, or is a bare image id.
    """
    if _IDENTIFIER.fullmatch(text):
        raise InvalidReference(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings",
            hint="give a name, as in name:tag",
        )
    domain, remainder = _split_domain(text)
    _refuse_upper_case(remainder)
    match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if match is None or match[1] is None:
        raise InvalidReference("invalid reference format", hint="a reference looks like [HOST[:PORT]/]NAME[:TAG]")
    if len(match[1]) + 1 + len(match[2]) > MAX_NAME:
        raise InvalidReference(f"repository name must not be more than {MAX_NAME} characters")
    return Reference(domain=match[1], path=match[2], tag=match[3], digest=_digest(match[4]))


def check_tag(text: str) -> str:
    """The tag itself when it is one. Raises InvalidReference."""
    if not _TAG_ONLY.fullmatch(text):
        raise InvalidReference("invalid tag format", hint="a tag has up to 128 letters, digits, '_', '.' and '-'")
    return text


def _digest(text: str | None) -> Digest | None:
    if text is None:
        return None
    try:
        return parse_digest(text)
    except InvalidDigest as error:
        raise InvalidReference("invalid reference format", hint=str(error)) from error


def _split_domain(text: str) -> tuple[str, str]:
    head, slash, rest = text.partition("/")
    if not slash or not _names_a_registry(head):
        domain, remainder = DEFAULT_DOMAIN, text
    else:
        domain, remainder = head, rest
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = f"{_OFFICIAL}/{remainder}"
    return domain, remainder


def _names_a_registry(head: str) -> bool:
    return "." in head or ":" in head or head == "localhost" or head.lower() != head


def _refuse_upper_case(remainder: str) -> None:
    name = remainder.partition("@")[0]
    # A colon after the last slash starts the tag, which may have upper-case letters.
    last = name.rfind("/")
    colon = name.find(":", last + 1)
    path = name if colon < 0 else name[:colon]
    if path.lower() != path:
        shown = path.removeprefix(f"{_OFFICIAL}/")[:200]
        raise InvalidReference(f"invalid reference format: repository name ({shown}) must be lowercase")
