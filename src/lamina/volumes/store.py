"""The volumes of a data root: `<root>/volumes/` as dockerd lays it out (blocking, thread-safe).

The directory is the truth about which volumes there are; `metadata.db` adds their labels and options.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lamina.clock import rfc3339
from lamina.errors import Conflict, CorruptRecord, InvalidArgument, NoSuchVolume, Unsupported
from lamina.ids import random_id
from lamina.jsonvalue import JsonObject, JsonValue, go_json, parse_object, string_map, text
from lamina.kernel.durable import fsync_dir, make_dirs, write_file
from lamina.kernel.mounts import Mount, is_mountpoint, mount, unmount
from lamina.rootfs.remove import remove_tree
from lamina.volumes.bolt import Bucket
from lamina.volumes.boltfile import BoltFile
from lamina.volumes.fill import fill_from_image
from lamina.volumes.options import LocalOptions, decode_options, parse_options

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
LOCAL = "local"
_BUCKET = b"volumes"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_MAX_NAME_BYTES = 255


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume. `mountpoint` is its data directory on the host; `created_at` as Go prints times."""

    name: str
    mountpoint: Path
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    created_at: str = ""

    @property
    def anonymous(self) -> bool:
        """Made for one container, and removed with it on request."""
        return ANONYMOUS_LABEL in self.labels


class VolumeStore:
    """Volumes by name, and which containers hold them."""

    def __init__(self, directory: Path) -> None:
        """`directory` is `<root>/volumes`; nothing is touched before `open`."""
        self._directory = directory
        self._lock = threading.RLock()
        self._file: BoltFile | None = None
        self._rows: dict[str, JsonObject] = {}
        self._names: set[str] = set()
        self._going: set[str] = set()
        self._filling: dict[str, threading.Lock] = {}
        self._holders: dict[str, set[str]] = {}

    def open(self) -> list[str]:
        """Take the data root for this process, and read what is there. Returns warnings.

        Raises:
            Conflict: another daemon, ours or dockerd, has the data root.
            CorruptRecord: the database cannot be read.
        """
        make_dirs(self._directory, 0o701)
        self._file = BoltFile(self._directory / "metadata.db")
        self._make_quota_device()
        self._names = {entry.name for entry in os.scandir(self._directory) if entry.is_dir(follow_symlinks=False)}
        warnings = list(self._read_rows())
        gone = [name for name in self._rows if name not in self._names]
        if gone:
            for name in gone:
                del self._rows[name]
            self._write_rows()
        return warnings

    def close(self) -> None:
        """Give the data root back. Twice is fine."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def create(
        self, name: str | None = None, *, labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None, driver: str = LOCAL,
    ) -> Volume:  # fmt: skip
        """Make a volume, or give the one that has this name already. Without a name it is anonymous.

        Raises:
            InvalidArgument: the name or an option is not allowed.
            NoSuchVolume: an unknown driver.
            Unsupported: as `parse_options`.
        """
        if driver not in {"", LOCAL}:
            raise NoSuchVolume(
                f'create {name or ""}: error looking up volume plugin {driver}: plugin "{driver}" not found',
                hint="the only volume driver is local",
            )
        labels = dict(labels or {})
        if not name:
            name = random_id()
            labels.setdefault(ANONYMOUS_LABEL, "")
        _check_name(name)
        try:
            wanted = parse_options(options or {})
        except (InvalidArgument, Unsupported) as error:
            raise type(error)(f"create {name}: {error}", hint=error.hint) from error
        with self._lock:
            if name in self._names:
                return self.get(name)
            self._check_not_going(name)
            try:
                self._make_directory(name, wanted)
                self._rows[name] = _row(name, labels, options or {})
                self._write_rows()
            except BaseException:
                self._rows.pop(name, None)
                self._unmake_directory(name)
                raise
            self._names.add(name)
            return self.get(name)

    def get(self, name: str) -> Volume:
        """Raises NoSuchVolume."""
        with self._lock:
            if name not in self._names:
                raise NoSuchVolume(f"get {name}: no such volume")
            row = self._rows.get(name, {})
        return Volume(
            name,
            self._directory / name / "_data",
            labels=string_map(row, "Labels"),
            options=string_map(row, "Options"),
            created_at=self._created_at(name),
        )

    def list(self) -> list[Volume]:
        """Every volume, sorted by name."""
        with self._lock:
            return [self.get(name) for name in sorted(self._names)]

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume with its data. `force` makes a missing one fine.

        Raises:
            NoSuchVolume: it is not there, without `force`.
            Conflict: a container holds it.
        """
        with self._lock:
            if name not in self._names:
                if force:
                    return
                raise NoSuchVolume(f"get {name}: no such volume")
            holders = self._holders.get(name)
            if holders:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(sorted(holders))}]")
            self._names.discard(name)
            self._filling.pop(name, None)
            self._going.add(name)
        try:
            # Without the lock: a large volume takes its time.
            self._unmount(name)
            remove_tree(self._directory / name / "_data")
            remove_tree(self._directory / name)
            fsync_dir(self._directory)
        except BaseException:
            with self._lock:
                self._names.add(name)
            raise
        finally:
            with self._lock:
                self._going.discard(name)
        with self._lock:
            if name not in self._names and self._rows.pop(name, None) is not None:
                self._write_rows()

    def hold(self, name: str, container_id: str) -> Volume:
        """Note that a container uses the volume, and have its options mounted. Again is fine.

        Raises:
            NoSuchVolume: it is not there.
            OSError: its file system cannot be mounted.
        """
        with self._lock:
            volume = self.get(name)
            self._mount(name)
            self._holders.setdefault(name, set()).add(container_id)
            return volume

    def release(self, name: str, container_id: str) -> None:
        """The container uses the volume no more; the last one unmounts it. Again, and an unknown name, is fine."""
        with self._lock:
            holders = self._holders.get(name)
            if holders is None:
                return
            holders.discard(container_id)
            if not holders:
                del self._holders[name]
                self._unmount(name)

    def holders(self, name: str) -> frozenset[str]:
        """The containers that hold the volume."""
        with self._lock:
            return frozenset(self._holders.get(name, ()))

    def populate(self, volume: Volume, rootfs: Path, inside: str) -> None:
        """Copy what the image has at `inside` into the volume, if it is empty: Docker's rule for the first use.

        The name is resolved inside `rootfs`, whatever symlinks an image puts in its way.
        """
        with self._lock:
            filling = self._filling.setdefault(volume.name, threading.Lock())
        with filling:
            fill_from_image(volume.mountpoint, rootfs, inside)

    def _check_not_going(self, name: str) -> None:
        if name in self._going:
            raise Conflict(f"create {name}: a volume of this name is being removed")

    def _read_rows(self) -> Sequence[str]:
        assert self._file is not None
        bucket = self._file.root.items.get(_BUCKET)
        if not isinstance(bucket, Bucket):
            return []
        warnings = []
        for key, value in bucket.items.items():
            try:
                if isinstance(value, Bucket):
                    raise CorruptRecord("it is a bucket")
                row = parse_object(value, what="the record")
                string_map(row, "Labels")
                string_map(row, "Options")
                self._rows[text(row, "Name") or os.fsdecode(key)] = row
            except (CorruptRecord, InvalidArgument) as error:
                warnings.append(f"volume {os.fsdecode(key)!r} has a broken record: {error}")
        return warnings

    def _write_rows(self) -> None:
        assert self._file is not None
        kept = self._file.root.items.get(_BUCKET)
        bucket = Bucket(sequence=kept.sequence if isinstance(kept, Bucket) else 0)
        for name, row in self._rows.items():
            bucket.items[name.encode()] = go_json(row)
        others = {key: value for key, value in self._file.root.items.items() if key != _BUCKET}
        self._file.commit(Bucket({**others, _BUCKET: bucket}, self._file.root.sequence))

    def _make_directory(self, name: str, wanted: LocalOptions | None) -> None:
        directory = self._directory / name
        try:
            make_dirs(directory, 0o701)
        except FileExistsError as error:
            raise Conflict(f"create {name}: the data root has a file of this name") from error
        make_dirs(directory / "_data", 0o755)
        if wanted is not None:
            write_file(directory / "opts.json", go_json(wanted.to_json()), mode=0o600)
        fsync_dir(directory)
        fsync_dir(self._directory)

    def _unmake_directory(self, name: str) -> None:
        """What `_make_directory` made; anything else that is there stays."""
        directory = self._directory / name
        with contextlib.suppress(OSError):
            (directory / "opts.json").unlink(missing_ok=True)
            (directory / "_data").rmdir()
            directory.rmdir()

    def _created_at(self, name: str) -> str:
        try:
            seconds = int((self._directory / name).stat().st_mtime)
        except FileNotFoundError:  # removed by hand under a running daemon
            return ""
        return rfc3339(seconds * 1_000_000_000)

    def _local_options(self, name: str) -> LocalOptions | None:
        path = self._directory / name / "opts.json"
        try:
            return decode_options(parse_object(path.read_bytes(), what=str(path)))
        except FileNotFoundError:
            return None

    def _mount(self, name: str) -> None:
        wanted = self._local_options(name)
        target = self._directory / name / "_data"
        if wanted is None or is_mountpoint(target):
            return
        fstype, flags, data = wanted.mount_arguments()
        mount(Mount(fstype, wanted.device, target, flags=flags, data=data))

    def _unmount(self, name: str) -> None:
        target = self._directory / name / "_data"
        if (self._directory / name / "opts.json").exists() and is_mountpoint(target):
            unmount(target, detach=True)

    def _make_quota_device(self) -> None:
        """The block device node of this file system, as dockerd makes it anew at each start for quota calls."""
        path = self._directory / "backingFsBlockDev"
        path.unlink(missing_ok=True)
        with contextlib.suppress(PermissionError):  # a sandbox without CAP_MKNOD: only quotas would want it
            os.mknod(path, stat.S_IFBLK | 0o600, self._directory.stat().st_dev)


def _check_name(name: str) -> None:
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME_BYTES:
        raise InvalidArgument(
            f'create {name[:100]}: "{name[:100]}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )


def _row(name: str, labels: Mapping[str, str], options: Mapping[str, str]) -> JsonObject:
    def or_null(values: Mapping[str, str]) -> JsonValue:
        return dict(values) or None

    return {"Name": name, "Driver": LOCAL, "Labels": or_null(labels), "Options": or_null(options)}
