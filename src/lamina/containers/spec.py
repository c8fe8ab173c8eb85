"""The runtime spec of a container: values in, JSON out (pure).

Everything about this host or this container's files was found out before (`containers/gather.py`); here are only rules.

Source: runtime-spec config.md and config-linux.md; moby daemon/oci_linux.go, oci/defaults.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lamina.containers import capabilities, resources, seccomp
from lamina.containers.accounts import ResolvedUser
from lamina.containers.devices import Device, device_entry
from lamina.containers.environment import process_env
from lamina.containers.security import SecurityOptions
from lamina.errors import InvalidArgument, Unsupported
from lamina.jsonvalue import (
    JsonObject,
    JsonValue,
    boolean,
    from_strings,
    integer,
    items,
    objects,
    string_map,
    strings,
    text,
)

INIT_INSIDE = "/sbin/docker-init"
DEFAULT_SHM_BYTES = 64 << 20
HOST: None = None
"""A namespace that the container shares with the host."""
NEW = ""
"""A namespace of its own; any other text is the path of one to join."""

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True)
class Namespaces:
    """`HOST`, `NEW`, or a path, for each kind."""

    network: str | None = NEW
    pid: str | None = NEW
    ipc: str | None = NEW
    uts: str | None = NEW
    cgroup: str | None = HOST


@dataclass(frozen=True, slots=True)
class Bind:
    """A host path shown in the container. Sources exist; destinations are absolute."""

    source: str
    destination: str
    rw: bool = True
    propagation: str = "rprivate"
    recursive: bool = True


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A tmpfs in the container; `options` are complete."""

    destination: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpecInputs:
    """All that decides a runtime spec, resolved.

    `config` and `host_config` are the container's, read for what needs no look at the host. `engine_files` are the
    binds of /etc/hosts and the like, which a user's own mount replaces. `shm` is a bind for /dev/shm when it is shared
    (None: a tmpfs of its own). `init_path` is the host's init program, empty when there is none.
    """

    container_id: str
    rootfs: str
    path: str
    args: tuple[str, ...]
    config: JsonObject
    host_config: JsonObject
    user: ResolvedUser
    namespaces: Namespaces
    cgroup_path: str
    capabilities_available: frozenset[str]
    machine: str
    kernel: tuple[int, int]
    cgroup_version: int = 1
    binds: tuple[Bind, ...] = ()
    engine_files: tuple[Bind, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    shm: Bind | None = None
    devices: tuple[Device, ...] = ()
    host_devices: tuple[Device, ...] = ()
    device_numbers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    init_path: str = ""
    hard_limits: Mapping[str, int] = field(default_factory=dict)


def runtime_spec(inputs: SpecInputs) -> JsonObject:
    """The content of `config.json` of the bundle.

    Raises:
        InvalidArgument: something asked for makes no sense.
        Unsupported: something this host or daemon cannot give.
    """
    host = inputs.host_config
    found: JsonObject = {
        "ociVersion": "1.0.2",
        "process": _container_process(inputs),
        "root": _root(inputs),
        "hostname": text(inputs.config, "Hostname") if inputs.namespaces.uts == NEW else "",
        "mounts": _mounts(inputs),
        "linux": _linux(inputs),
    }
    if not found["hostname"]:
        del found["hostname"]
    annotations = string_map(host, "Annotations")
    if annotations:
        found["annotations"] = dict(annotations)
    return found


def exec_process(
    inputs: SpecInputs,
    args: tuple[str, ...],
    user: ResolvedUser,
    *,
    env: tuple[str, ...] = (),
    cwd: str = "",
    tty: bool = False,
    privileged: bool = False,
) -> JsonObject:
    """The `process` of an exec in a running container: its own command, user and terminal, the container's limits."""
    if not args:
        raise InvalidArgument("No exec command specified")
    hostname = text(inputs.config, "Hostname")
    return _process(
        inputs,
        args,
        user,
        env=process_env(hostname, [*strings(inputs.config, "Env"), *env], tty=tty),
        cwd=cwd or text(inputs.config, "WorkingDir"),
        tty=tty,
        privileged=privileged or boolean(inputs.host_config, "Privileged"),
    )


def _container_process(inputs: SpecInputs) -> JsonObject:
    tty = boolean(inputs.config, "Tty")
    args = (inputs.path, *inputs.args)
    if _wants_init(inputs):
        args = (INIT_INSIDE, "--", *args)
    return _process(
        inputs,
        args,
        inputs.user,
        env=process_env(text(inputs.config, "Hostname"), strings(inputs.config, "Env"), tty=tty),
        cwd=text(inputs.config, "WorkingDir"),
        tty=tty,
        privileged=boolean(inputs.host_config, "Privileged"),
    )


def _process(
    inputs: SpecInputs,
    args: tuple[str, ...],
    user: ResolvedUser,
    *,
    env: list[str],
    cwd: str,
    tty: bool,
    privileged: bool,
) -> JsonObject:
    host = inputs.host_config
    granted = capabilities.granted(
        strings(host, "CapAdd"), strings(host, "CapDrop"), inputs.capabilities_available, privileged=privileged
    )
    sets: JsonObject = {"bounding": from_strings(granted)}
    if user.uid == 0:
        # Others get none of these at execve(2) either; the inheritable set stays empty (CVE-2022-24769).
        sets["effective"] = from_strings(granted)
        sets["permitted"] = from_strings(granted)
    found: JsonObject = {
        "terminal": tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": from_strings(args),
        "env": from_strings(env),
        "cwd": cwd or "/",
        "capabilities": sets,
    }
    size = _console_size(host)
    if tty and size:
        found["consoleSize"] = size
    limits = resources.rlimits(host, inputs.hard_limits, raises="CAP_SYS_RESOURCE" in inputs.capabilities_available)
    if limits:
        found["rlimits"] = limits
    if SecurityOptions.parse(strings(host, "SecurityOpt")).no_new_privileges:
        found["noNewPrivileges"] = True
    found["oomScoreAdj"] = integer(host, "OomScoreAdj")
    return found


def _console_size(host: JsonObject) -> JsonObject | None:
    size = items(host, "ConsoleSize")
    if len(size) != 2:
        return None
    height, width = size
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        return None
    return {"height": height, "width": width}


def _root(inputs: SpecInputs) -> JsonObject:
    found: JsonObject = {"path": inputs.rootfs}
    if boolean(inputs.host_config, "ReadonlyRootfs"):
        found["readonly"] = True
    return found


def _wants_init(inputs: SpecInputs) -> bool:
    if not boolean(inputs.host_config, "Init") or inputs.namespaces.pid != NEW:
        return False
    if not inputs.init_path:
        raise Unsupported(
            "cannot start container: --init needs docker-init or tini on this host",
            hint="install the package tini, or run without --init",
        )
    return True


# -- mounts ----------------------------------------------------------------------------------------------------


def _mounts(inputs: SpecInputs) -> list[JsonValue]:
    users: list[JsonObject] = [_bind(bind) for bind in inputs.binds]
    users += [_mount(one.destination, "tmpfs", "tmpfs", *one.options) for one in inputs.tmpfs]
    taken = {str(mount["destination"]) for mount in users}
    found = [mount for mount in _default_mounts(inputs) if not _is_replaced(str(mount["destination"]), taken)]
    users += [_bind(bind) for bind in inputs.engine_files if bind.destination not in taken]
    if _wants_init(inputs):
        users.append(_mount(INIT_INSIDE, "bind", inputs.init_path, "bind", "ro"))
    # A mount on a parent directory would hide one made before it: shallow ones first, else as they were given.
    users.sort(key=lambda mount: str(mount["destination"]).rstrip("/").count("/"))
    found += users
    if boolean(inputs.host_config, "ReadonlyRootfs"):
        _make_engine_mounts_read_only(found, taken)
    return list(found)


def _is_replaced(destination: str, taken: set[str]) -> bool:
    return destination in taken or ("/dev" in taken and destination.startswith("/dev/"))


def _default_mounts(inputs: SpecInputs) -> list[JsonObject]:
    privileged = boolean(inputs.host_config, "Privileged")
    security = SecurityOptions.parse(strings(inputs.host_config, "SecurityOpt"))
    kernel_ro = () if privileged else ("ro",)
    cgroup_ro = () if privileged or security.writable_cgroups else ("ro",)
    found = [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
        ),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", *kernel_ro),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", *cgroup_ro, "nosuid", "noexec", "nodev"),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
    ]
    if inputs.shm is not None:
        found.append(_bind(inputs.shm))
    elif text(inputs.host_config, "IpcMode") != "none":
        size = integer(inputs.host_config, "ShmSize") or DEFAULT_SHM_BYTES
        found.append(_mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", f"size={size}"))
    return found


def _make_engine_mounts_read_only(mounts: list[JsonObject], taken: set[str]) -> None:
    for mount in mounts:
        destination, options = str(mount["destination"]), mount["options"]
        if destination in {"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"} or destination in taken:
            continue
        if isinstance(options, list) and "ro" not in options:
            options.append("ro")


def _bind(bind: Bind) -> JsonObject:
    options = ["rbind" if bind.recursive else "bind", bind.propagation or "rprivate"]
    if not bind.rw:
        options.append("ro")
    return _mount(bind.destination, "bind", bind.source, *options)


def _mount(destination: str, kind: str, source: str, *options: str) -> JsonObject:
    return {"destination": destination, "type": kind, "source": source, "options": from_strings(options)}


# -- linux -----------------------------------------------------------------------------------------------------


def _linux(inputs: SpecInputs) -> JsonObject:
    host = inputs.host_config
    privileged = boolean(host, "Privileged")
    found: JsonObject = {
        "sysctl": _sysctls(inputs),
        "resources": resources.resources(
            host,
            inputs.devices,
            inputs.device_numbers,
            cgroup_version=inputs.cgroup_version,
        ),
        "cgroupsPath": inputs.cgroup_path,
        "namespaces": _namespaces(inputs.namespaces),
    }
    devices = inputs.host_devices if privileged else ()
    named = {device.path for device in inputs.devices}
    entries: list[JsonValue] = [device_entry(device) for device in devices if device.path not in named]
    entries += [device_entry(device) for device in inputs.devices]
    if entries:
        found["devices"] = entries
    secured = _seccomp(inputs)
    if secured is not None:
        found["seccomp"] = secured
    propagation = _rootfs_propagation(inputs.binds)
    if propagation:
        found["rootfsPropagation"] = propagation
    if not privileged:
        found["maskedPaths"] = _paths(host, "MaskedPaths", MASKED_PATHS)
        found["readonlyPaths"] = _paths(host, "ReadonlyPaths", READONLY_PATHS)
    return found


def _paths(host: JsonObject, key: str, default: tuple[str, ...]) -> list[JsonValue]:
    """What the host config says, an empty list included; the default when it says nothing."""
    return from_strings(strings(host, key) if host.get(key) is not None else default)


def _namespaces(wanted: Namespaces) -> list[JsonValue]:
    found: list[JsonValue] = [{"type": "mount"}]
    for kind, choice in (
        ("network", wanted.network),
        ("uts", wanted.uts),
        ("pid", wanted.pid),
        ("ipc", wanted.ipc),
        ("cgroup", wanted.cgroup),
    ):
        if choice is None:
            continue
        entry: JsonObject = {"type": kind}
        if choice != NEW:
            entry["path"] = choice
        found.append(entry)
    return found


def _sysctls(inputs: SpecInputs) -> JsonObject:
    found: JsonObject = {}
    if inputs.namespaces.network is not None and not text(inputs.host_config, "NetworkMode").startswith("container:"):
        found["net.ipv4.ip_unprivileged_port_start"] = "0"
        found["net.ipv4.ping_group_range"] = "0 2147483647"
    domain = text(inputs.config, "Domainname")
    if domain and inputs.namespaces.uts == NEW:
        found["kernel.domainname"] = domain
    found.update(string_map(inputs.host_config, "Sysctls"))
    return found


def _seccomp(inputs: SpecInputs) -> JsonObject | None:
    host = inputs.host_config
    profile = SecurityOptions.parse(strings(host, "SecurityOpt")).seccomp
    if profile == "unconfined" or boolean(host, "Privileged"):
        return None
    granted = capabilities.granted(
        strings(host, "CapAdd"), strings(host, "CapDrop"), inputs.capabilities_available, privileged=False
    )
    if profile in {"", "builtin"}:
        return seccomp.default_filter(frozenset(granted), inputs.machine)
    return seccomp.filter_of_profile(profile, granted, inputs.machine, inputs.kernel)


def _rootfs_propagation(binds: tuple[Bind, ...]) -> str:
    """What the root must be for the strongest propagation asked for. Source: moby oci_linux.go, withMounts."""
    wanted = {bind.propagation.removeprefix("r") for bind in binds}
    if "shared" in wanted:
        return "shared"
    return "rslave" if "slave" in wanted else ""


def wanted_devices(host_config: JsonObject) -> list[tuple[str, str, str]]:
    """The `--device` entries: path on the host, path inside, cgroup permissions."""
    found: list[tuple[str, str, str]] = []
    for entry in objects(host_config, "Devices"):
        outside = text(entry, "PathOnHost")
        found.append((outside, text(entry, "PathInContainer") or outside, text(entry, "CgroupPermissions") or "rwm"))
    return found
