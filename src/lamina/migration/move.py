"""The way from one driver to another, up to the step that moves the data root (blocking)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lamina.clock import SystemClock
from lamina.errors import Conflict, InvalidArgument, NotFound, Unsupported
from lamina.kernel import durable
from lamina.layers.pool import WorkerPool
from lamina.migration import records
from lamina.migration.image_layers import copy_layers
from lamina.migration.journal import Journal, Stage, end
from lamina.migration.need import Need, need
from lamina.migration.progress import Progress
from lamina.migration.settle import settle
from lamina.migration.stores import Store, opened, owning, require_idle
from lamina.migration.writable import WritableCopies, copyable
from lamina.rootfs.remove import remove_tree
from lamina.storage.choice import read_choice
from lamina.storage.select import options_of, prior_drivers, survey

DRIVERS = ("overlay2", "aufs", "btrfs", "devicemapper", "vfs", "zfs")
_SHOWN_LOST = 10


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asks for. `source` is only needed where a data root has state of several drivers.

    `options` are `--storage-opt` pairs of both drivers; `force` leaves behind what the new driver cannot hold.
    """

    root: Path
    target: str
    source: str = ""
    options: Mapping[str, str] | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """What a migration did. `layers_found` had been copied before it was interrupted."""

    source: str
    target: str
    layers: int
    layers_found: int
    containers: int
    seconds: float
    warnings: tuple[str, ...]
    already: bool = False


def plan(wish: Wish) -> tuple[str, Need, list[str]]:
    """The present driver, what would be copied, and warnings. Nothing is written.

    Raises:
        Conflict: a daemon has the data root, containers run, or there is a store of the new driver already.
    """
    with owning(wish.root), WorkerPool() as pool:
        source = _source(wish)
        _require_target(wish, source, None)
        with _old_store(wish, source, pool) as (old, names, warnings):
            return source, _need(wish, old, names, None), warnings


def migrate(wish: Wish, progress: Progress) -> Moved:
    """Move the data root, going on where an earlier try ended.

    Raises:
        Conflict: a daemon has the data root, containers run, another migration is not ended, or the new driver cannot
            hold everything (`force` leaves that behind).
        StorageFull: it will not fit, or did not.
        DataLoss: a layer is damaged. Unsupported: the new driver does not work here.
    """
    began = time.monotonic()
    with owning(wish.root), exclusively(wish.root), WorkerPool() as pool:
        journal = settle(wish.root)
        if journal is not None and journal.stage is Stage.SWITCHED and journal.target == wish.target:
            count = len(journal.containers)
            return Moved(journal.source, journal.target, 0, 0, count, time.monotonic() - began, (), already=True)
        _require_no_other(wish, journal)
        source = journal.source if journal is not None else _source(wish)
        _require_target(wish, source, journal)
        with _old_store(wish, source, pool) as (old, names, warnings):
            moved = _copy(wish, journal or Journal(source, wish.target), old, names, pool=pool, progress=progress)
        return replace(moved, seconds=time.monotonic() - began, warnings=(*warnings, *moved.warnings))


@contextlib.contextmanager
def exclusively(root: Path) -> Iterator[None]:
    """Inside, no other migration command works on the data root.

    Raises:
        Conflict: one does.
    """
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"another migration command works on {root}", hint="wait for it, or end it") from error
        yield
    finally:
        os.close(directory)


def _source(wish: Wish) -> str:
    """The driver that has the data root now."""
    choice = read_choice(wish.root)
    if choice is not None:
        return choice.driver
    if wish.source:
        return wish.source
    prior = prior_drivers(wish.root)
    if len(prior) > 1:
        raise Conflict(f"{wish.root} has state of {', '.join(prior)}", hint="say which one is to be moved: --from NAME")
    if prior:
        return prior[0]
    layers = wish.root / "vfs/dir"
    if layers.is_dir() and os.listdir(layers):
        return "vfs"
    raise NotFound(f"{wish.root} holds no layers of any storage driver: there is nothing to move")


def _require_no_other(wish: Wish, journal: Journal | None) -> None:
    if journal is None or (journal.stage is Stage.COPYING and journal.target == wish.target):
        return
    again = f"lamina system migrate --data-root {wish.root}"
    hints = {
        Stage.COPYING: f"go on: {again} --to {journal.target}; or give it up: {again} --rollback",
        Stage.SWITCHED: f"end it: {again} --confirm; or go back: {again} --rollback",
        Stage.CONFIRMING: f"{again} --confirm",
        Stage.RETURNING: f"{again} --rollback",
    }
    raise Conflict(
        f"a migration from {journal.source} to {journal.target} is not ended ({journal.stage.value})",
        hint=hints[journal.stage],
    )


def _require_target(wish: Wish, source: str, journal: Journal | None) -> None:
    """Refuse what cannot be, before anything is written."""
    for name in (source, wish.target):
        if name not in DRIVERS:
            raise InvalidArgument(f"unknown storage driver {name!r}", hint=f"choose one of: {', '.join(DRIVERS)}")
    if source == wish.target:
        raise Conflict(f"{wish.root} has the storage driver {source} already")
    known = {**options_of(source, wish.options), **options_of(wish.target, wish.options)}
    for key in wish.options or {}:
        if key not in known:
            raise InvalidArgument(f"option {key} belongs neither to {source} nor to {wish.target}")
    report = next(report for report in survey(wish.root) if report.name == wish.target)
    # With options (a pool, a dataset of its own) the driver itself has to be asked, when it is opened.
    if not report.usable and not options_of(wish.target, wish.options):
        raise Unsupported(f"{wish.target} does not work on {wish.root}: {report.reason}", hint=report.remedy)
    if journal is None:
        _require_empty(wish)


def _require_empty(wish: Wish) -> None:
    store = wish.root / "image" / wish.target
    layers, mounts = store / "layerdb/sha256", store / "layerdb/mounts"
    counts = [len(os.listdir(place)) if place.is_dir() else 0 for place in (layers, mounts)]
    if records.images(store) or any(counts):
        raise Conflict(
            f"{wish.root} has a store of {wish.target} already: {len(records.images(store))} images, {counts[0]} "
            f"layers, {counts[1]} containers",
            hint=f"empty it with a daemon on it (lamina daemon --storage-driver {wish.target} …), or move {store} and "
            f"{wish.root / wish.target} away",
        )


@contextlib.contextmanager
def _old_store(wish: Wish, source: str, pool: WorkerPool) -> Iterator[tuple[Store, list[str], list[str]]]:
    """The store to be moved, the writable layers that can be, and warnings."""
    mounts = wish.root / "image" / source / "layerdb/mounts"
    require_idle(wish.root, os.listdir(mounts) if mounts.is_dir() else [])
    with opened(wish.root, source, options_of(source, wish.options), pool) as old:
        names, warnings = copyable(old)
        yield old, names, [*old.warnings, *warnings]


def _need(wish: Wish, old: Store, names: list[str], new: Store | None) -> Need:
    missing = {layer.chain_id for layer in old.layers.layers() if new is None or not new.layers.exists(layer.chain_id)}
    on_devices = wish.target == "devicemapper" and "dm.thinpooldev" in (wish.options or {})
    return need(wish.root, old, wish.target, names=names, missing=missing, on_devices=on_devices)


def _copy(wish: Wish, journal: Journal, old: Store, names: list[str], *, pool: WorkerPool, progress: Progress) -> Moved:
    """Copy everything, then take the step."""
    if journal.stale:
        journal = replace(journal, filled=frozenset(), stale=False)
    is_fresh = not (wish.root / "image" / wish.target).exists()
    if is_fresh:
        _need(wish, old, names, None).check(wish.root, wish.target)
    # From here on a daemon must not take the new driver's home for state that it has to choose by.
    journal.write(wish.root)
    with contextlib.ExitStack() as stack:
        try:
            new = stack.enter_context(opened(wish.root, wish.target, options_of(wish.target, wish.options), pool))
        except (Unsupported, InvalidArgument):
            if is_fresh:
                remove_tree(wish.root / wish.target)
                end(wish.root, journal.source)
            raise
        filling = _Filling(wish.root, journal)
        left = [name for name in names if name not in journal.filled]
        if not is_fresh:
            _need(wish, old, left, new).check(wish.root, wish.target)
        copied = copy_layers(old.layers, new.layers, pool, progress)
        warnings = _copy_writable(wish, old, new, left, filling=filling, progress=progress)
        for name in set(new.layers.rw_names()) - set(names):
            new.layers.remove_unfinished_rw(name)
        records.copy_image_records(old.images, new.images)
        durable.sync_filesystem(wish.root)
        durable.sync_filesystem(wish.root / wish.target)
    present = records.containers(wish.root)
    moving = [key for key, record in present.items() if record.driver == journal.source and key in names]
    _switch(wish.root, replace(filling.journal, containers=tuple(moving)))
    return Moved(journal.source, journal.target, copied.copied, copied.found, len(names), 0.0, tuple(warnings))


def _copy_writable(
    wish: Wish, old: Store, new: Store, names: list[str], *, filling: _Filling, progress: Progress
) -> list[str]:
    """Copy these writable layers; warnings come back."""
    limits = {key: record.limit_bytes for key, record in records.containers(wish.root).items()}
    bounds = {key: limit for key, limit in limits.items() if limit is not None}
    copies = WritableCopies(old, new, bounds, filling.filled, progress)
    copies.copy(names)
    _require_nothing_lost(wish, copies, filling)
    return copies.warnings


class _Filling:
    """The journal while writable layers are being copied by several threads."""

    def __init__(self, root: Path, journal: Journal) -> None:
        self._root = root
        self._lock = threading.Lock()
        self.journal = journal

    def filled(self, name: str) -> None:
        with self._lock:
            self.journal = self.journal.with_filled(name)
            self.journal.write(self._root)

    def forget(self, names: set[str]) -> None:
        with self._lock:
            self.journal = replace(self.journal, filled=self.journal.filled - names)
            self.journal.write(self._root)


def _require_nothing_lost(wish: Wish, copies: WritableCopies, filling: _Filling) -> None:
    if not copies.lost:
        return
    lines = [
        f"container {name[:12]}: /{lost.path}: {lost.reason}" for name, all_ in copies.lost.items() for lost in all_
    ]
    if wish.force:
        copies.warnings.extend(f"left behind: {line}" for line in lines)
        return
    filling.forget(set(copies.lost))
    shown = "\n  ".join(
        [*lines[:_SHOWN_LOST], *([f"and {len(lines) - _SHOWN_LOST} more"] if lines[_SHOWN_LOST:] else [])]
    )
    raise Conflict(
        f"{wish.target} cannot hold everything that the containers have:\n  {shown}",
        hint="remove it, or leave it behind with --force (the old store keeps it until --confirm)",
    )


def _switch(root: Path, journal: Journal) -> None:
    """The step: one write moves the data root, what follows can be done again by anybody."""
    replace(journal, stage=Stage.SWITCHED, switched_ns=SystemClock().now_ns(), filled=frozenset()).write(root)
    settle(root)
