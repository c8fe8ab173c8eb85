"""Which datasets there are below a parent, and which of them are layers (blocking).

A layer is `<parent>/<id>` with `mountpoint=legacy`, as dockerd has it. Ours also carry the user property
`org.lamina:layer`, given with the rest when they are made (dockerd ignores it, clones do not inherit it); what dockerd
made is known by its name, 64 hex digits. Everything else below the parent is somebody else's and is left alone.

A snapshot that we make for a child carries `org.lamina:between`, so that nobody else's snapshot of a layer is touched.

All is read by one channel program: one call, however many layers there are.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lamina.errors import CorruptRecord
from lamina.ids import CacheId
from lamina.kernel import zfs
from lamina.kernel.nvlist import NvValue

LAYER_MARK = "org.lamina:layer"
BETWEEN_MARK = "org.lamina:between"
OWNER_MARK = "org.lamina:data-root"
PROPERTIES: Mapping[str, NvValue] = {"mountpoint": "legacy", LAYER_MARK: "1"}
"""What every new layer gets."""

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_DOCKERS = re.compile(r"[0-9a-f]{64}(-init)?")
_GOING = re.compile(r"(.+)-removing-[0-9]+")

_CHILDREN = f"""
local asked = ...
local found = {{}}
for child in zfs.list.children(asked["parent"]) do
  local one = {{}}
  one["origin"] = zfs.get_prop(child, "origin")
  one["mountpoint"] = zfs.get_prop(child, "mountpoint")
  local mark, marked = zfs.get_prop(child, "{LAYER_MARK}")
  if marked == child then one["mark"] = mark end
  local snapshots = {{}}
  for snapshot in zfs.list.snapshots(child) do
    if zfs.get_prop(snapshot, "{BETWEEN_MARK}") then
      snapshots[snapshot] = zfs.get_prop(snapshot, "defer_destroy")
    end
  end
  one["snapshots"] = snapshots
  found[child] = one
end
return found
"""
_ORIGIN = """
local asked = ...
local found = {}
found["origin"] = zfs.get_prop(asked["dataset"], "origin")
return found
"""
_DESTROY = """
local asked = ...
local snapshots = {}
for snapshot in zfs.list.snapshots(asked["dataset"]) do
  snapshots[#snapshots + 1] = snapshot
end
for _, snapshot in ipairs(snapshots) do
  zfs.sync.destroy{snapshot, defer=true}
end
return zfs.sync.destroy(asked["dataset"])
"""
_PARENT = f"""
local asked = ...
local found = {{}}
for _, name in ipairs({{"used", "available", "quota", "compression", "type", "{OWNER_MARK}"}}) do
  found[name] = zfs.get_prop(asked["parent"], name)
end
return found
"""
_MARK = f"""
local asked = ...
zfs.sync.set_prop(asked["parent"], "{OWNER_MARK}", asked["root"])
"""


@dataclass(frozen=True, slots=True)
class Child:
    """One dataset below the parent. `mountpoint` is empty for what is no file system.

    `snapshots` are the full names of those that we made for its children, and that are still to be given up.
    """

    name: str
    is_marked: bool
    mountpoint: str
    origin: str
    snapshots: tuple[str, ...]

    @property
    def short_name(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def is_layer(self) -> bool:
        """One of ours or of dockerd's, and not on its way out."""
        return self._may_be_layer(self.short_name) and not self.is_going

    @property
    def is_going(self) -> bool:
        """A layer that was removed while something still held it, and was renamed until that lets go."""
        going = _GOING.fullmatch(self.short_name)
        return going is not None and self._may_be_layer(going[1])

    @property
    def is_legacy(self) -> bool:
        return self.mountpoint == "legacy"

    def _may_be_layer(self, name: str) -> bool:
        if not self.mountpoint or ID.fullmatch(name) is None:
            return False
        return self.is_marked or _DOCKERS.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Parent:
    """The dataset that all layers lie in. `owner` is the data root that was noted on it, if any."""

    used_bytes: int
    available_bytes: int
    quota_bytes: int
    compression: str
    is_file_system: bool
    owner: str


def is_going_name(name: str) -> bool:
    """Is this how layers are called that are on their way out?"""
    return _GOING.fullmatch(name) is not None


def pool_of(dataset: str) -> str:
    return dataset.partition("/")[0]


def children(parent: str) -> list[Child]:
    """Every dataset directly below, in no order.

    Raises:
        OSError: ENOENT where there is no such parent.
    """
    return [_child(name, facts) for name, facts in _named(_ask(parent, _CHILDREN, {"parent": parent}, large=True))]


def destroy_with_snapshots(dataset: str) -> int:
    """Remove a dataset and its snapshots in one transaction; the errno of what stood against it, or 0.

    A snapshot that has clones or holds stays until they are gone, and the dataset stays with it.
    """
    return _errno(zfs.change(pool_of(dataset), _DESTROY, {"dataset": dataset}))


def origin_of(dataset: str) -> str:
    """The snapshot that a dataset was cloned from; empty for one that was not cloned."""
    return _text(_ask(dataset, _ORIGIN, {"dataset": dataset}), "origin")


def parent_facts(parent: str) -> Parent:
    """Raises OSError (ENOENT) where there is no such dataset."""
    if not zfs.exists(parent):
        raise FileNotFoundError(errno.ENOENT, "no such dataset", parent)
    found = _ask(parent, _PARENT, {"parent": parent})
    return Parent(
        used_bytes=_number(found, "used"),
        available_bytes=_number(found, "available"),
        quota_bytes=_number(found, "quota"),
        compression=_text(found, "compression"),
        is_file_system=_text(found, "type") == "filesystem",
        owner=_text(found, OWNER_MARK),
    )


def note_owner(parent: str, root: str) -> None:
    """Write on the parent whose layers these are."""
    zfs.change(pool_of(parent), _MARK, {"parent": parent, "root": root})


def _ask(dataset: str, program: str, arguments: Mapping[str, NvValue], *, large: bool = False) -> Mapping[str, NvValue]:
    found = zfs.ask(pool_of(dataset), program, arguments, large=large)
    if not isinstance(found, dict):
        raise CorruptRecord(f"zfs told nothing about the dataset {dataset}")
    return found


def _child(name: str, facts: Mapping[str, NvValue]) -> Child:
    snapshots = facts.get("snapshots")
    if not isinstance(snapshots, dict):
        snapshots = {}
    return Child(
        name=name,
        is_marked=bool(_text(facts, "mark")),
        mountpoint=_text(facts, "mountpoint"),
        origin=_text(facts, "origin"),
        snapshots=tuple(name for name, deferred in snapshots.items() if deferred != "on"),
    )


def _errno(found: NvValue) -> int:
    return found if isinstance(found, int) else 0


def _named(found: Mapping[str, NvValue]) -> Iterator[tuple[str, Mapping[str, NvValue]]]:
    yield from ((name, facts) for name, facts in found.items() if isinstance(facts, dict))


def _text(facts: Mapping[str, NvValue], name: str) -> str:
    found = facts.get(name)
    return found if isinstance(found, str) else ""


def _number(facts: Mapping[str, NvValue], name: str) -> int:
    found = facts.get(name)
    return found if isinstance(found, int) else 0


def cache_id_of(dataset: str) -> CacheId:
    return CacheId(dataset.rpartition("/")[2])
