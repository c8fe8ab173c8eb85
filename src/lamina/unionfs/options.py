"""The words after `-o`: branches as AUFS names them, and what else may be said about a mount.

Source: aufs(5), mount(8), mount.fuse3(8).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from lamina.errors import InvalidArgument
from lamina.kernel import libc

_MOUNT_FLAGS = {
    "ro": libc.MS_RDONLY,
    "nosuid": libc.MS_NOSUID,
    "nodev": libc.MS_NODEV,
    "noexec": libc.MS_NOEXEC,
    "noatime": libc.MS_NOATIME,
}
_DEFAULTS = {"rw", "suid", "dev", "exec", "atime", "defaults", "relatime", "allow_other", "default_permissions"}
_WITHOUT_MEANING = {"dirperm1", "nodirperm1", "dio", "nodio", "noxino", "plink", "sum", "nosum", "verbose", "noverbose"}
"""Options of AUFS that mean nothing here: it is always as if dirperm1, dio, noxino and plink were on."""
_WITHOUT_MEANING_VALUED = {"xino", "xib", "udba", "create", "wbr_create", "cpup", "wbr_copyup", "rdcache", "rdblk"}
_CONTEXTS = {"context", "fscontext", "defcontext", "rootcontext"}
MOST_THREADS = 64


@dataclass(frozen=True, slots=True)
class BranchOption:
    """One branch as it was given: `wh` says that a read-only branch may hold whiteouts."""

    path: str
    writable: bool
    whiteouts: bool


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that `-o` said. `flags` are MS_* bits, `data` goes to the kernel as it is."""

    branches: tuple[BranchOption, ...] = ()
    flags: int = 0
    source: str = "none"
    data: str = ""
    passthrough: bool = True
    takeover: bool = False
    threads: int = 4


def parse(text: str) -> Options:
    """Read the option string.

    Raises:
        InvalidArgument: an unknown option, by name; a branch that makes no sense.
    """
    found = Options()
    for word in text.split(","):
        found = _with(found, word.strip())
    if not found.branches:
        raise InvalidArgument("no branch is given", hint="such as -o br:/writable=rw:/below=ro+wh")
    for branch in found.branches[1:]:
        if branch.writable:
            raise InvalidArgument(
                f"branch {branch.path} is writable, but only the first branch can be", hint=f"{branch.path}=ro+wh"
            )
    if len({branch.path for branch in found.branches}) != len(found.branches):
        raise InvalidArgument("a branch is given twice")
    return found


def _with(found: Options, word: str) -> Options:
    for prefix in ("br:", "br=", "dirs=", "append:", "append=", "add:"):
        if word.startswith(prefix):
            first = not found.branches
            return replace(found, branches=(*found.branches, *_branches(word.removeprefix(prefix), first=first)))
    name, equals, value = word.partition("=")
    if value:
        return _with_value(found, name, value)
    if not equals:
        if not word or name in _DEFAULTS | _WITHOUT_MEANING:
            return found
        if name in _MOUNT_FLAGS:
            return replace(found, flags=found.flags | _MOUNT_FLAGS[name])
        if name == "nopassthrough":
            return replace(found, passthrough=False)
        if name == "takeover":
            return replace(found, takeover=True)
    raise InvalidArgument(f"unknown mount option {word!r}")


def _with_value(found: Options, name: str, value: str) -> Options:
    if name in _WITHOUT_MEANING_VALUED:
        return found
    if name == "fsname":
        return replace(found, source=value)
    if name == "threads":
        if not value.isdecimal() or not 1 <= int(value) <= MOST_THREADS:
            raise InvalidArgument(f"threads={value} makes no sense", hint=f"1 to {MOST_THREADS}")
        return replace(found, threads=int(value))
    if name in _CONTEXTS:
        return replace(found, data=f"{found.data},{name}={value}" if found.data else f"{name}={value}")
    raise InvalidArgument(f"unknown mount option {name!r}")


def _branches(text: str, *, first: bool) -> list[BranchOption]:
    found: list[BranchOption] = []
    for part in text.split(":"):
        path, _, kind = part.rpartition("=")
        if not path:
            path, kind = part, "rw" if first and not found else "ro"
        words = set(kind.split("+"))
        access = words & {"rw", "ro", "rr"}
        unknown = words - access - {"wh", "nolwh", "coo_reg", "coo_all", "fhsm", "moo", "unpin"}
        if not path or len(access) != 1 or unknown:
            raise InvalidArgument(
                f"branch {part!r} cannot be understood", hint="a branch is PATH=rw, PATH=ro or PATH=ro+wh"
            )
        writable = access == {"rw"}
        found.append(BranchOption(os.path.abspath(path), writable, writable or "wh" in words))
    return found
