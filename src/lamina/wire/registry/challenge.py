"""`WWW-Authenticate` and what answers it (pure).

Source: RFC 9110 section 11; distribution "Token Authentication Specification".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_HEADER_CHARS = 8192

_SCHEME = re.compile(r"[ \t,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:[ \t]+|$)")
_PARAM = re.compile(r"[ \t,]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]*))")
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that the server offers. `scheme` and the names of parameters are lower-case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def decode(header: str) -> tuple[Challenge, ...]:
    """The challenges of one `WWW-Authenticate` header, in its order; what is not understood ends the list."""
    rest = header[:MAX_HEADER_CHARS]
    found: list[Challenge] = []
    while scheme := _SCHEME.match(rest):
        rest = rest[scheme.end() :]
        parameters: dict[str, str] = {}
        while parameter := _PARAM.match(rest):
            name, quoted, bare = parameter.groups()
            parameters.setdefault(name.lower(), _ESCAPE.sub(r"\1", quoted) if quoted is not None else bare)
            rest = rest[parameter.end() :]
        found.append(Challenge(scheme[1].lower(), parameters))
    return tuple(found)


def encode(challenge: Challenge) -> str:
    """The header of one challenge."""
    values = ",".join(f'{name}="{_quote(value)}"' for name, value in challenge.parameters.items())
    return f"{challenge.scheme.capitalize()} {values}".rstrip()


def _quote(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def pull_scope(repository: str) -> str:
    return f"repository:{repository}:pull"


def push_scope(repository: str) -> str:
    return f"repository:{repository}:pull,push"
