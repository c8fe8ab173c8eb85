"""A container's passwd and group files as text, and who `user[:group]` is by them (pure).

The files are the container's, so they are hostile: numbers are checked, and a number that a user typed is always a
number, whatever somebody is called in there (CVE-2024-40635, CVE-2026-46680).

Source: moby daemon/oci_linux.go (getUser, WithAdditionalGIDs); github.com/moby/sys/user.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lamina.errors import InvalidArgument

MAX_ID = 2**31 - 1
_MAX_GROUPS = 65536


@dataclass(frozen=True, slots=True)
class ResolvedUser:
    """Numbers of the process. `groups` are all supplementary groups, the primary one first. `home` may be empty."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = (0,)
    home: str = ""


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: frozenset[str]


def resolve(wanted: str, group_add: Sequence[str], passwd: bytes, group: bytes) -> ResolvedUser:
    """Numbers for `user`, `uid`, `user:group`, … by the content of the two files; empty means root.

    Raises:
        InvalidArgument: no such name, or a number out of range.
    """
    user, separator, group_wanted = wanted.partition(":")
    groups = list(_groups(group))
    account = _account(user, list(_accounts(passwd)))
    gid = account.gid
    if separator and group_wanted:
        gid = _group(group_wanted, groups)
        supplementary = [gid]
    else:
        supplementary = [gid, *(entry.gid for entry in groups if account.name and account.name in entry.members)]
    for name in group_add:
        supplementary.append(
            _group(name, groups, words="Unable to find group {name}: no matching entries in group file")
        )
    return ResolvedUser(account.uid, gid, tuple(dict.fromkeys(supplementary))[:_MAX_GROUPS], account.home)


def _account(user: str, accounts: list[_Account]) -> _Account:
    number = _number(user or "0")
    for account in accounts:
        if (account.uid == number) if number is not None else (account.name == user):
            return account
    if number is None:
        raise InvalidArgument(f"unable to find user {user[:80]}: no matching entries in passwd file")
    return _Account("", number, 0, "")


def _group(wanted: str, groups: list[_Group], words: str = "unable to find group {name}: no matching entries") -> int:
    number = _number(wanted)
    if number is not None:
        return number
    for group in groups:
        if group.name == wanted:
            return group.gid
    raise InvalidArgument(words.replace("{name}", wanted[:80]) + ("" if "Unable" in words else " in group file"))


def _number(given: str) -> int | None:
    """The number a user typed; None when it is a name."""
    digits = given[1:] if given[:1] in {"-", "+"} else given
    if not (digits.isascii() and digits.isdecimal()):
        return None
    if len(digits) > 10 or given[0] == "-" or int(digits) > MAX_ID:
        raise InvalidArgument("uids and gids must be in range 0-2147483647")
    return int(digits)


def _accounts(content: bytes) -> Iterator[_Account]:
    for fields in _lines(content, at_least=4):
        uid, gid = _field(fields[2]), _field(fields[3])
        if uid is not None and gid is not None:
            yield _Account(fields[0], uid, gid, fields[5] if len(fields) > 5 else "")


def _groups(content: bytes) -> Iterator[_Group]:
    for fields in _lines(content, at_least=3):
        gid = _field(fields[2])
        if gid is not None:
            members = frozenset(fields[3].split(",")) if len(fields) > 3 else frozenset()
            yield _Group(fields[0], gid, members)


def _lines(content: bytes, at_least: int) -> Iterator[list[str]]:
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= at_least and not line.startswith("#"):
            yield fields


def _field(given: str) -> int | None:
    """A number of the file; lines with others are as if they were not there."""
    if not (given.isascii() and given.isdecimal()) or len(given) > 10 or int(given) > MAX_ID:
        return None
    return int(given)
