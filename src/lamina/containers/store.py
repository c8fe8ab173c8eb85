"""All containers: kept in memory, written to `containers/<id>/` as dockerd does (blocking, thread-safe).

One save renames hostconfig.json into place first and config.v2.json last, so after a crash the host config may be one
step newer than the config, never the other way round. A new directory is staged under another name, and one that goes
is renamed first: what a crash leaves of either is swept by the next load.

Source: moby container/container.go (CheckpointTo), daemon/daemon.go (restore), daemon/names.go.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from lamina.containers.record import Container, decode_container, encode_config_v2, encode_host_config
from lamina.containers.state import Status
from lamina.containers.unfinished import Unfinished
from lamina.errors import AlreadyExists, InvalidArgument, LaminaError, NameInUse, NoSuchContainer
from lamina.ids import ContainerId
from lamina.kernel import durable

CONFIG = "config.v2.json"
HOST_CONFIG = "hostconfig.json"
MAX_RECORD_BYTES = 8 << 20
_ID = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = re.compile(r"\.tmp-.*")
_STAGED = ".new-"
_GONE = ".gone-"


class ContainerStore:
    """Lookup by id, name and id prefix; what is on disk is what a dockerd of 20.10 or later reads."""

    def __init__(self, directory: Path, driver_name: str) -> None:
        """`directory` is `<data root>/containers`; made when missing."""
        self._directory = directory
        self._driver_name = driver_name
        self._lock = threading.RLock()
        self._by_id: dict[ContainerId, Container] = {}
        self._names: dict[str, ContainerId] = {}
        self._writing: dict[ContainerId, threading.Lock] = {}
        self._host_config_on_disk: dict[ContainerId, int] = {}
        durable.make_dirs(directory, 0o710)
        self.unfinished = Unfinished(directory)

    # -- starting ----------------------------------------------------------------------------------------------

    def load(self, rw_names: Collection[str]) -> list[str]:
        """Read every container; `rw_names` are the writable layers that exist. What cannot be used stays on disk.

        Returns one warning for each directory that was left out. Skipped, as by dockerd: an unreadable record, an id
        that is not the directory's name, another storage driver's container, no writable layer, a name taken twice.
        """
        warnings: list[str] = []
        for name in sorted(os.listdir(self._directory)):
            if name.startswith((_STAGED, _GONE)):
                shutil.rmtree(self._directory / name, ignore_errors=True)  # an interrupted create or remove
                continue
            if not _ID.fullmatch(name):
                continue
            try:
                container = self._read(ContainerId(name))
                if container is None:
                    self._sweep(name)
                    continue
                self._take_in(container, rw_names)
            except (LaminaError, OSError) as error:
                warnings.append(f"container {name[:12]} is left out: {error}")
        return warnings

    def _read(self, container_id: ContainerId) -> Container | None:
        directory = self._directory / container_id
        try:
            config = _read_bounded(directory / CONFIG)
        except FileNotFoundError:
            return None
        host_config: bytes | None = None
        with contextlib.suppress(FileNotFoundError):
            host_config = _read_bounded(directory / HOST_CONFIG)
        container = decode_container(config, host_config)
        if container.id != container_id:
            raise InvalidArgument(f"its record belongs to {container.id[:12]}")
        return container

    def _sweep(self, name: str) -> None:
        """Throw away what an interrupted create or remove left; keep anything that is not ours to judge."""
        directory = self._directory / name
        left = {entry for entry in os.listdir(directory) if not _TEMPORARY.fullmatch(entry)}
        if left <= {HOST_CONFIG, "checkpoints"}:
            shutil.rmtree(directory)

    def _take_in(self, container: Container, rw_names: Collection[str]) -> None:
        driver = container.driver or "aufs"  # records from before Docker had a choice name none
        if driver != self._driver_name:
            raise InvalidArgument(f"it belongs to storage driver {driver!r}")
        if container.id not in rw_names and not container.state.removal_in_progress:
            raise InvalidArgument("its writable layer does not exist")
        if container.state.removal_in_progress:
            container.state.removal_in_progress = False
            container.state.dead = True
            container.state.status = Status.DEAD
        self.reserve_name(container.name, container.id)
        self._by_id[container.id] = container

    # -- looking -----------------------------------------------------------------------------------------------

    def resolve(self, text: str) -> Container:
        """The container of an id, a name (with or without slash) or an id prefix: tried in this order.

        Raises:
            NoSuchContainer: nothing fits.
            InvalidArgument: empty text, or a prefix of several ids.
        """
        if not text:
            raise InvalidArgument("No container name or ID supplied")
        with self._lock:
            named = self._names.get(text.removeprefix("/"))
            found = self._by_id.get(ContainerId(text)) or (self._by_id.get(named) if named else None)
            if found is not None:
                return found
            fitting = [container for key, container in self._by_id.items() if key.startswith(text)]
        if len(fitting) > 1:
            raise InvalidArgument(f"Multiple IDs found with provided prefix: {text[:80]}")
        if not fitting:
            raise NoSuchContainer(f"No such container: {text[:300]}")
        return fitting[0]

    def all(self) -> list[Container]:
        """Every container, in no promised order."""
        with self._lock:
            return list(self._by_id.values())

    def directory(self, container_id: ContainerId) -> Path:
        """Where the files of this container are."""
        return self._directory / container_id

    # -- names -------------------------------------------------------------------------------------------------

    def reserve_name(self, name: str, container_id: ContainerId) -> None:
        """Keep a name for this container; again for the same one is fine.

        Raises:
            NameInUse: another container has it.
        """
        with self._lock:
            owner = self._names.setdefault(name, container_id)
        if owner != container_id:
            raise NameInUse(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def release_name(self, name: str) -> None:
        """Give a reserved name up. Again is fine."""
        with self._lock:
            self._names.pop(name, None)

    # -- writing -----------------------------------------------------------------------------------------------

    def add(self, container: Container) -> None:
        """Make the directory, write the record durably, and let others find the container.

        Reserves the name when that has not been done. On error nothing is left, but for a name reserved before.

        Raises:
            NameInUse: another container has the name.
            AlreadyExists: the id is taken.
        """
        with self._lock:
            reserved_before = self._names.get(container.name) == container.id
            self.reserve_name(container.name, container.id)
        try:
            self._write_directory(container)
        except BaseException:
            if not reserved_before:
                self.release_name(container.name)
            raise
        with self._lock:
            self._by_id[container.id] = container

    def _write_directory(self, container: Container) -> None:
        """Write the directory under another name, then rename: half the waiting for the disk of saving in place."""
        directory, staged = self.directory(container.id), self._directory / f"{_STAGED}{container.id}"
        if directory.exists():
            raise AlreadyExists(f"container directory {directory} exists")
        config, host_config = encode_config_v2(container), encode_host_config(container)
        with contextlib.ExitStack() as undo:
            staged.mkdir(0o710)
            undo.callback(shutil.rmtree, staged)
            staged.chmod(0o710)
            (staged / "checkpoints").mkdir(0o700)
            durable.write_new_file(staged / HOST_CONFIG, host_config)
            durable.write_new_file(staged / CONFIG, config)
            durable.fsync_dir(staged)
            staged.rename(directory)
            undo.pop_all()
        durable.fsync_dir(self._directory)
        self._host_config_on_disk[container.id] = hash(host_config)

    def save(self, container: Container) -> None:
        """Write the record; when this returns it is on disk."""
        self._write(container, durable.write_file)

    def save_lazy(self, container: Container) -> None:
        """Write the record without waiting for the disk: for changes that a restart finds out by itself."""
        self._write(container, durable.write_file_ordered)

    def _write(self, container: Container, write: Callable[[Path, bytes, int], None]) -> None:
        config, host_config = encode_config_v2(container), encode_host_config(container)
        directory = self.directory(container.id)
        with self._lock:
            lock = self._writing.setdefault(container.id, threading.Lock())
        with lock:
            # The host config seldom changes: half of the waiting for the disk is saved by not writing it again.
            if self._host_config_on_disk.get(container.id) != hash(host_config):
                write(directory / HOST_CONFIG, host_config, 0o600)
                self._host_config_on_disk[container.id] = hash(host_config)
            write(directory / CONFIG, config, 0o600)

    def rename(self, container: Container, name: str) -> None:
        """Give the container another name, durably; the old one is free afterwards.

        Raises:
            NameInUse: another container has the new name; nothing is changed.
        """
        self.reserve_name(name, container.id)
        old = container.name
        container.name = name
        try:
            self.save(container)
        except BaseException:
            container.name = old
            self.release_name(name)
            raise
        if old != name:
            self.release_name(old)

    def forget(self, container: Container) -> None:
        """Remove the record and the directory, and free id and name. Nothing may be mounted below the directory.

        The directory is renamed away first, so a crash leaves garbage and never half a container; what cannot be
        removed now is swept by the next load. Again is fine.
        """
        gone = self._directory / f"{_GONE}{container.id}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.directory(container.id), gone)
            shutil.rmtree(gone, ignore_errors=True)
        with self._lock:
            self._by_id.pop(container.id, None)
            self._writing.pop(container.id, None)
            self._host_config_on_disk.pop(container.id, None)
            for name in [name for name, owner in self._names.items() if owner == container.id]:
                del self._names[name]


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise InvalidArgument(f"{path.name} is larger than {MAX_RECORD_BYTES} bytes")
    return data
