"""The two ends of a migration: the old store goes, or the new one does (blocking)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lamina.errors import Conflict, LayerInUse
from lamina.ids import CacheId
from lamina.kernel.mounts import is_mountpoint
from lamina.layers.pool import WorkerPool
from lamina.migration import records
from lamina.migration.journal import Journal, Stage, end, read_journal
from lamina.migration.move import exclusively
from lamina.migration.progress import Progress
from lamina.migration.settle import settle
from lamina.migration.stores import Store, opened, owning, require_idle
from lamina.rootfs.remove import empty_directory, remove_tree
from lamina.rootfs.walk import walk
from lamina.storage.driver import StorageDriver
from lamina.storage.mounting import Mounts
from lamina.storage.select import open_driver, options_of

_SHOWN = 20


def confirm(root: Path, options: Mapping[str, str], progress: Progress) -> Journal:
    """Remove the old store for ever. A daemon may be at work on the new one.

    Raises:
        Conflict: nothing has been moved, or it has not come to its end.
    """
    with exclusively(root):
        journal = _pending(root)
        if journal.stage not in {Stage.SWITCHED, Stage.CONFIRMING}:
            raise Conflict(
                f"the migration from {journal.source} to {journal.target} has not moved the data root "
                f"({journal.stage.value}): there is nothing to confirm",
                hint=f"lamina system migrate --data-root {root} --to {journal.target}, or --rollback",
            )
        settle(root)
        replace(journal, stage=Stage.CONFIRMING).write(root)
        progress.say(f"removing the store of {journal.source}")
        _destroy(root, journal.source, options)
        end(root, journal.target)
        return journal


def rollback(root: Path, options: Mapping[str, str], progress: Progress, *, force: bool = False) -> Journal:
    """Return to the old store and remove the new one. What was written after the switch is lost, which takes `force`.

    Raises:
        Conflict: nothing to return to, a daemon has the data root, containers run, or something would be lost.
    """
    with owning(root), exclusively(root):
        _pending(root)
        journal = settle(root)
        assert journal is not None
        if journal.stage is Stage.CONFIRMING:
            raise Conflict(
                f"the store of {journal.source} is being removed already: there is no way back",
                hint=f"finish it: lamina system migrate --data-root {root} --confirm",
            )
        _require_nothing_running(root, journal)
        if journal.stage is Stage.SWITCHED:
            _require_nothing_new(root, journal, options, force=force)
        journal = replace(journal, stage=Stage.RETURNING)
        journal.write(root)
        settle(root)
        progress.say(f"removing the store of {journal.target}")
        records.forget_containers(root, _made_since(root, journal))
        _forget_gone(root, journal, options)
        _destroy(root, journal.target, options)
        end(root, journal.source)
        return journal


def _pending(root: Path) -> Journal:
    journal = read_journal(root)
    if journal is None:
        raise Conflict(f"no migration of {root} waits for its end", hint="begin one: lamina system migrate --to DRIVER")
    return journal


def _require_nothing_running(root: Path, journal: Journal) -> None:
    for driver in (journal.source, journal.target):
        require_idle(root, _mount_names(root, driver))


def _mount_names(root: Path, driver: str) -> list[str]:
    place = root / "image" / driver / "layerdb/mounts"
    return os.listdir(place) if place.is_dir() else []


def _made_since(root: Path, journal: Journal) -> list[str]:
    """Containers that only the new store has."""
    known = set(journal.containers)
    there = set(_mount_names(root, journal.target))
    return [
        key for key, record in records.containers(root).items()
        if record.driver == journal.target and key not in known and key in there
    ]  # fmt: skip


def _forget_gone(root: Path, journal: Journal, options: Mapping[str, str]) -> None:
    """Containers that were removed since leave writable layers in the old store."""
    gone = sorted(set(journal.containers) - records.containers(root).keys())
    if not gone:
        return
    with WorkerPool() as pool, opened(root, journal.source, options_of(journal.source, options), pool) as old:
        for name in gone:
            old.layers.remove_unfinished_rw(name)


def _require_nothing_new(root: Path, journal: Journal, options: Mapping[str, str], *, force: bool) -> None:
    if force:
        return
    lost = _losses(root, journal, options)
    if not lost:
        return
    lines = [*lost[:_SHOWN], *([f"and {len(lost) - _SHOWN} more"] if lost[_SHOWN:] else [])]
    raise Conflict(
        f"since {root} was moved to {journal.target}, this has come that {journal.source} does not have:\n  "
        + "\n  ".join(lines),
        hint="save what you need (lamina save, lamina export), or lose it with --force",
    )


def _losses(root: Path, journal: Journal, options: Mapping[str, str]) -> list[str]:
    """What the new store has and the old one has not, a line each."""
    old_images, new_images = (root / "image" / driver for driver in (journal.source, journal.target))
    lost = [f"image {image[:12]}" for image in sorted(records.images(new_images) - records.images(old_images))]
    before, now = records.tags(old_images), records.tags(new_images)
    lost += [f"tag {tag}" for tag, image in sorted(now.items()) if before.get(tag) != image and "@" not in tag]
    present = records.containers(root)
    lost += [f"container {present[key].name or key[:12]}" for key in _made_since(root, journal)]
    with WorkerPool() as pool, opened(root, journal.target, options_of(journal.target, options), pool) as new:
        for key in journal.containers:
            if key in present:
                lost += _written(new, key, present[key].name or key[:12], journal.switched_ns)
    return lost


def _written(new: Store, key: str, name: str, since_ns: int) -> list[str]:
    """What was written into one container since: whatever touches an inode sets its change time."""
    with new.mounts.mounted(new.layers.rw(key).mount_id) as tree:
        paths = [os.fsdecode(seen.name) for seen in walk(tree) if seen.status.st_ctime_ns > since_ns]
    if not paths:
        return []
    rest = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return [f"changes in container {name}: /{paths[0]}{rest}"]


def _destroy(root: Path, name: str, options: Mapping[str, str]) -> None:
    """Remove a driver's store. What is gone already is passed over, so this can be done again."""
    home, images = root / name, root / "image" / name
    if home.exists():
        driver = open_driver(name, root, options_of(name, options))
        try:
            Mounts(driver).recover(())
            _remove_layers(driver)
        finally:
            driver.close()
    remove_tree(images)
    if not is_mountpoint(home):
        remove_tree(home)
        return
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        empty_directory(fd)  # the file system itself is not ours to unmount
    finally:
        os.close(fd)


def _remove_layers(driver: StorageDriver) -> None:
    """Children before parents: what still has children is tried again.

    Raises:
        LayerInUse: nothing can be removed any more.
    """
    left = sorted(driver.cache_ids())
    while left:
        busy: list[CacheId] = []
        failure: LayerInUse | None = None
        for cache_id in left:
            try:
                driver.remove(cache_id)
            except LayerInUse as error:
                busy.append(cache_id)
                failure = error
        if failure is not None and len(busy) == len(left):
            raise failure
        left = busy
