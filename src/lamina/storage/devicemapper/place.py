"""Finding or making the pool of a store: loop files, given devices, or a pool that somebody else made (blocking)."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import Conflict, CorruptRecord, InvalidArgument, NotFound, Unsupported
from lamina.kernel import loop
from lamina.kernel.devicemapper import Device, DeviceMapper
from lamina.kernel.dm_ioctl import SECTOR
from lamina.kernel.durable import make_dirs
from lamina.storage.devicemapper.options import DEFAULT_LOOP_DATA_SIZE, DEFAULT_LOOP_METADATA_SIZE, Options
from lamina.storage.devicemapper.pool import Pool, pool_table, read_thin_superblock

LOOP_WARNING = (
    "devicemapper: usage of loopback devices is strongly discouraged for production use. "
    "Use `--storage-opt dm.thinpooldev` to specify a custom block storage device."
)


@dataclass(frozen=True, slots=True)
class Place:
    """A store's pool and what is below it.

    `data_file` and `metadata_file` are loop files, None for devices. `is_ours`: we made the pool, and remove it.
    """

    pool: Pool
    data_file: Path | None = None
    metadata_file: Path | None = None
    is_ours: bool = True

    @property
    def is_on_loop(self) -> bool:
        return self.data_file is not None or self.metadata_file is not None


def open_place(mapper: DeviceMapper, home: Path, prefix: str, options: Options, *, has_layers: bool) -> Place:
    """The pool of the store in `home`, active.

    `has_layers`: there are records, so the pool's files must be there too.

    Raises:
        NotFound: a named pool or device is not there. Conflict: it is something else, or in use by another store.
        CorruptRecord: a part of the pool is lost or damaged.
    """
    if options.thin_pool:
        device = _named_pool(mapper, options.thin_pool)
        _revive(mapper, device)
        _refuse_strangers(mapper, device, prefix)
        return Place(Pool(mapper, device), is_ours=False)
    files = _Files(home / "devicemapper", options)
    files.check(has_layers=has_layers)
    name = f"{prefix}-pool"
    existing = mapper.find(name)
    if existing is not None and existing.is_live:
        return _existing(mapper, existing, files)
    if existing is not None:  # killed before it got its table
        mapper.remove(name, deferred=False)
    with ExitStack() as stack:
        data, metadata = files.data.device(stack), files.metadata.device(stack)
        superblock = read_thin_superblock(metadata)
        if superblock is not None and superblock.needs_check:
            raise CorruptRecord(
                f"the metadata of the thin pool in {files.metadata.name()} needs a check",
                hint=f"repair it: thin_check --clear-needs-check-flag {files.metadata.name()}, or thin_repair",
            )
        sectors = superblock.block_sectors if superblock is not None else options.block_sectors
        table = pool_table(_number(metadata), _number(data), _sectors(data), sectors)
        try:
            device = mapper.create(name, table)
        except OSError as error:
            raise CorruptRecord(
                f"the kernel makes no thin pool of {files.data.name()} and {files.metadata.name()}: {error.strerror}",
                hint="see dmesg; thin_check tells what is wrong with the metadata",
            ) from error
    return Place(Pool(mapper, device), files.data.file, files.metadata.file)


@dataclass(frozen=True, slots=True)
class _Part:
    """Data or metadata: a loop file of a size, or a device somebody named. `wanted` is None when no size was given."""

    file: Path | None
    given: str
    wanted: int | None
    size: int

    def name(self) -> str:
        return self.given or os.fspath(self.file or "")

    def is_empty(self) -> bool:
        """Whether nothing can ever have been in it: no file, or one that a crash left before it got its size."""
        return self.file is not None and (not os.path.lexists(self.file) or self.file.lstat().st_size == 0)

    def make(self) -> None:
        """Make the loop file, or let it grow when a larger size was asked for; it never shrinks, as Docker's."""
        if self.file is None:
            return
        make_dirs(self.file.parent, 0o700)
        fd = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            present = os.fstat(fd).st_size
            if present == 0 or (self.wanted or 0) > present:
                os.ftruncate(fd, self.wanted or self.size)
                os.fsync(fd)
        finally:
            os.close(fd)

    def device(self, stack: ExitStack) -> Path:
        """The block device, which the stack holds until the pool does."""
        if self.file is None:
            device = Path(self.given)
            if not device.is_block_device():
                raise NotFound(f"{self.given} is no block device", hint="see dm.datadev and dm.metadatadev")
            return device
        self.make()
        there = loop.find(self.file)
        if there:  # attached by somebody, or by us before a crash: two devices of one file would not agree
            loop.refresh_size(there[0])
            return there[0]
        try:
            return stack.enter_context(loop.attached(self.file))
        except FileNotFoundError as error:
            raise Unsupported("this kernel has no loop devices", hint="modprobe loop") from error


class _Files:
    """Both parts of a pool that this store makes itself."""

    def __init__(self, directory: Path, options: Options) -> None:
        self.data = _part(directory / "data", options.data_device, options.loop_data_size, DEFAULT_LOOP_DATA_SIZE)
        self.metadata = _part(
            directory / "metadata", options.metadata_device, options.loop_metadata_size, DEFAULT_LOOP_METADATA_SIZE
        )

    def check(self, *, has_layers: bool) -> None:
        """A new file in the place of a lost one would make rubbish of every layer."""
        for part in (self.data, self.metadata):
            if has_layers and part.is_empty():
                raise CorruptRecord(
                    f"{part.name()} is gone: the layers of this store were in it",
                    hint="put the file back; or, to begin anew, move the directory devicemapper of the data root away",
                )


def _part(file: Path, given: str, wanted: int | None, size: int) -> _Part:
    return _Part(None if given else file, given, wanted, size)


def _existing(mapper: DeviceMapper, device: Device, files: _Files) -> Place:
    """Take up the pool of a daemon before this one; below it must be what is in our directory now."""
    _revive(mapper, device)
    pool = Pool(mapper, device)
    grown = False
    for part, number in ((files.data, pool.data_number), (files.metadata, pool.metadata_number)):
        if part.file is None:
            continue
        major, _, minor = number.partition(":")
        below = Path(f"/dev/loop{minor}")
        shown = loop.backing_file(int(major), int(minor))
        if shown is None or below not in loop.find(part.file):
            raise CorruptRecord(
                f"the thin pool {device.name} does not stand on {part.file} any more, but on "
                f"{shown or f'device {number}, which has no file'}",
                hint=f"put the file back, or end all containers and run: dmsetup remove {device.name}",
            )
        if (part.wanted or 0) > part.file.stat().st_size:
            part.make()
            loop.refresh_size(below)
            grown = True
    if grown:
        _reload(mapper, pool)
    return Place(Pool(mapper, device), files.data.file, files.metadata.file)


def _reload(mapper: DeviceMapper, pool: Pool) -> None:
    """Show the pool the new size of what it stands on."""
    major, _, minor = pool.data_number.partition(":")
    size = int(Path(f"/sys/dev/block/{major}:{minor}/size").read_text(encoding="ascii"))
    table = pool_table(pool.metadata_number, pool.data_number, size, pool.block_bytes // SECTOR)
    mapper.load(pool.name, table)
    mapper.suspend(pool.name)
    mapper.resume(pool.name)


def _revive(mapper: DeviceMapper, device: Device) -> None:
    """A daemon that was killed between suspend and resume left everything on the pool waiting."""
    if device.is_suspended:
        mapper.resume(device.name)
    if device.goes_when_closed:
        mapper.cancel_deferred_removal(device.name)


def _named_pool(mapper: DeviceMapper, given: str) -> Device:
    """`dm.thinpooldev`: a device-mapper name, with /dev/mapper/ or not, or the path of any node of the device."""
    device = mapper.find(given.removeprefix("/dev/mapper/")) if "/" not in given.removeprefix("/dev/mapper/") else None
    if device is None and given.startswith("/") and os.path.exists(given):
        status = os.stat(given)
        wanted = (os.major(status.st_rdev), os.minor(status.st_rdev))
        names = [name for name, number in mapper.names().items() if number == wanted]
        device = mapper.find(names[0]) if names else None
    if device is None:
        raise NotFound(f"there is no thin pool {given}", hint="make it with lvcreate --type thin-pool, or dmsetup")
    kind = next((target.kind for target in mapper.table(device.name)), "device without a table")
    if kind != "thin-pool":
        raise InvalidArgument(f"dm.thinpooldev: {given} is a {kind}, not a thin pool")
    return device


def _refuse_strangers(mapper: DeviceMapper, pool: Device, prefix: str) -> None:
    """Another store's devices on the pool: its daemon, or its containers, run."""
    for name in mapper.names():
        if not name.startswith("docker-") or name.startswith(f"{prefix}-"):
            continue
        try:
            table = mapper.table(name)
        except OSError:
            continue  # it has gone meanwhile
        if table and table[0].kind == "thin" and table[0].params.split()[:1] == [pool.number]:
            raise Conflict(
                f"the thin pool {pool.name} is in use by another store: its device {name} is active",
                hint="give each data root a pool of its own",
            )


def _number(device: Path) -> str:
    status = device.stat()
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _sectors(device: Path) -> int:
    with device.open("rb") as file:
        return file.seek(0, os.SEEK_END) // SECTOR
