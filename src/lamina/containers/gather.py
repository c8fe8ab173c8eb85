"""Everything a runtime spec needs to know about this host and this container's files (blocking).

Source: moby daemon/oci_linux.go, daemon/container_operations_unix.go, oci/devices_linux.go.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lamina.containers import tmpfs
from lamina.containers.devices import Device, parse_access
from lamina.containers.host import HostFacts
from lamina.containers.record import Container, MountPoint
from lamina.containers.resources import throttled_paths
from lamina.containers.spec import HOST, NEW, Bind, Namespaces, SpecInputs, Tmpfs, wanted_devices
from lamina.containers.user import resolve_user
from lamina.errors import InvalidArgument, NotFound
from lamina.jsonvalue import JsonObject, boolean, mapping, strings, text
from lamina.kernel import durable

CGROUP_PARENT = "/lamina"
_NOT_HOST_DEVICES = {"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"}


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What a container may need to know of others.

    `pid_of` gives the first process of a running container by name or id (an error when it does not run); `shm_of` the
    host path of a container's shareable /dev/shm; `volume_path` the data directory of a volume.
    """

    pid_of: Callable[[str], int]
    shm_of: Callable[[str], str]
    volume_path: Callable[[str], str]


def gather(
    container: Container, rootfs: Path, facts: HostFacts, *, netns: Path | None, neighbours: Neighbours
) -> SpecInputs:
    """Resolve everything, for a container whose writable layer is mounted at `rootfs`.

    `netns` is the network namespace made for it; None: the runtime makes one, or the mode says whose is used. Missing
    sources of plain `-v` binds are made, as Docker does.

    Raises:
        InvalidArgument: a user, device or source that does not exist.
    """
    config, host = container.config, container.host_config
    return SpecInputs(
        container_id=container.id,
        rootfs=os.fspath(rootfs),
        path=container.path,
        args=tuple(container.args),
        config=config,
        host_config=host,
        user=resolve_user(rootfs, text(config, "User"), strings(host, "GroupAdd")),
        namespaces=_namespaces(host, netns, neighbours, facts.cgroups.version),
        cgroup_path=f"{text(host, 'CgroupParent').rstrip('/') or CGROUP_PARENT}/{container.id}",
        capabilities_available=facts.capabilities,
        machine=facts.machine,
        kernel=facts.kernel,
        cgroup_version=facts.cgroups.version,
        binds=tuple(_binds(container.mounts.values(), neighbours)),
        engine_files=_engine_files(container),
        tmpfs=tuple(_tmpfs(container)),
        shm=_shm(container, neighbours),
        devices=tuple(device for entry in wanted_devices(host) for device in devices_at(*entry)),
        host_devices=tuple(host_devices()) if boolean(host, "Privileged") else (),
        device_numbers={path: _numbers(path) for path in throttled_paths(host)},
        init_path=facts.init_path,
        hard_limits=facts.hard_limits,
    )


def _namespaces(host: JsonObject, netns: Path | None, neighbours: Neighbours, cgroup_version: int) -> Namespaces:
    def choose(mode: str, kind: str) -> str | None:
        if mode == "host":
            return HOST
        if mode.startswith("container:"):
            return f"/proc/{neighbours.pid_of(mode.removeprefix('container:'))}/ns/{kind}"
        return NEW

    network = choose(text(host, "NetworkMode"), "net")
    if network == NEW and netns is not None:
        network = os.fspath(netns)
    cgroupns = text(host, "CgroupnsMode") or ("private" if cgroup_version == 2 else "host")
    return Namespaces(
        network=network,
        pid=choose(text(host, "PidMode"), "pid"),
        ipc=choose(text(host, "IpcMode"), "ipc"),
        uts=choose(text(host, "UTSMode"), "uts"),
        cgroup=choose(cgroupns, "cgroup"),
    )


def _shm(container: Container, neighbours: Neighbours) -> Bind | None:
    mode = text(container.host_config, "IpcMode")
    if mode == "host":
        return Bind("/dev/shm", "/dev/shm")
    if mode.startswith("container:"):
        return Bind(neighbours.shm_of(mode.removeprefix("container:")), "/dev/shm")
    if mode == "shareable" and container.shm_path:
        return Bind(container.shm_path, "/dev/shm")
    return None


def _binds(mounts: Iterable[MountPoint], neighbours: Neighbours) -> Iterable[Bind]:
    for mount in mounts:
        if mount.type == "tmpfs":
            continue
        source = mount.source
        if mount.type == "volume":
            source = neighbours.volume_path(mount.name)
        elif not os.path.lexists(source):
            _make_source(mount)
        options = mapping(mount.spec, "BindOptions")
        yield Bind(
            source,
            mount.destination,
            rw=mount.rw,
            propagation=mount.propagation or "rprivate",
            recursive=not boolean(options, "NonRecursive"),
        )


def _make_source(mount: MountPoint) -> None:
    if mount.skip_create:
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {mount.source}',
            hint="make the directory first, or use -v, which makes it",
        )
    durable.make_dirs(Path(mount.source), 0o755)


def _engine_files(container: Container) -> tuple[Bind, ...]:
    places = (
        (container.resolv_conf_path, "/etc/resolv.conf"),
        (container.hostname_path, "/etc/hostname"),
        (container.hosts_path, "/etc/hosts"),
    )
    return tuple(Bind(source, inside) for source, inside in places if source)


def _tmpfs(container: Container) -> Iterable[Tmpfs]:
    for inside, options in mapping(container.host_config, "Tmpfs").items():
        yield Tmpfs(inside, tmpfs.merged_options(options if isinstance(options, str) else ""))
    for mount in container.mounts.values():
        if mount.type == "tmpfs":
            yield Tmpfs(mount.destination, tmpfs.options_of_mount(mount.spec))


def devices_at(outside: str, inside: str, access: str) -> list[Device]:
    """The device at a host path, or every device below a directory.

    Raises:
        InvalidArgument: no device there.
    """
    parse_access(access)
    resolved = os.path.realpath(outside)
    try:
        if stat.S_ISDIR(os.stat(resolved).st_mode):
            found = [_renamed(device, resolved, inside, access) for device in _devices_below(resolved)]
        else:
            found = [_device(resolved, inside, access)]
    except OSError as error:
        raise _no_device(outside, str(error.strerror).lower()) from error
    if not found:
        raise _no_device(outside, "not a device node")
    return found


def host_devices() -> list[Device]:
    """Every device of the host's /dev: what a privileged container gets."""
    return _devices_below("/dev", skip=_NOT_HOST_DEVICES)


def _devices_below(directory: str, skip: Iterable[str] = ()) -> list[Device]:
    found: list[Device] = []
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if name in skip or os.path.islink(path):
            continue
        try:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                found += _devices_below(path)
            else:
                found.append(_device(path, path, "rwm"))
        except (InvalidArgument, FileNotFoundError, NotADirectoryError):
            continue  # no device, or gone since it was listed
    return found


def _device(path: str, inside: str, access: str) -> Device:
    found = os.stat(path)
    if stat.S_ISBLK(found.st_mode):
        kind = "b"
    elif stat.S_ISCHR(found.st_mode):
        kind = "c"
    else:
        raise _no_device(path, "not a device node")
    return Device(
        path=inside,
        kind=kind,
        major=os.major(found.st_rdev),
        minor=os.minor(found.st_rdev),
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        access=access,
    )


def _renamed(device: Device, outside: str, inside: str, access: str) -> Device:
    path = inside.rstrip("/") + device.path[len(outside) :]
    return Device(path, device.kind, device.major, device.minor, device.mode, device.uid, device.gid, access)


def _no_device(path: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f'error gathering device information while adding custom device "{path}": {reason}')


def _numbers(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}") from error
    return os.major(found.st_rdev), os.minor(found.st_rdev)
