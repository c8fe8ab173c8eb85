"""What a container has around its process: mounted root, network, volumes, files in /etc, runtime spec (blocking).

`Surroundings` is what the lifecycle acquires before a run and gives back after it; it is the one place where layers,
networks, volumes and containers meet for a start.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from lamina.containers.execs import ExecOrder
from lamina.containers.gather import CGROUP_PARENT, Neighbours, gather
from lamina.containers.host import HostFacts
from lamina.containers.record import Container
from lamina.containers.spec import DEFAULT_SHM_BYTES, Namespaces, SpecInputs, exec_process, runtime_spec
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.containers.user import resolve_user
from lamina.errors import Conflict, InvalidArgument, NoSuchVolume
from lamina.ids import ContainerId
from lamina.jsonvalue import JsonObject, integer, strings, text
from lamina.kernel.durable import make_dirs
from lamina.kernel.mounts import Mount, is_mountpoint, mount, unmount
from lamina.layers.store import LayerStore
from lamina.networks import files as etc
from lamina.networks.networks import Joined, Networks
from lamina.networks.settings import stored_endpoint, without_addresses
from lamina.volumes.store import VolumeStore

_ALIVE = (Status.RUNNING, Status.PAUSED)


@dataclass(frozen=True, slots=True)
class DnsDefaults:
    """The daemon's own choice, for containers that make none."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Surroundings:
    """Gives containers what they run in, and takes it back."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        layers: LayerStore,
        networks: Networks,
        volumes: VolumeStore,
        facts: HostFacts,
        dns: DnsDefaults,
    ) -> None:
        self._store = store
        self._layers = layers
        self._networks = networks
        self._volumes = volumes
        self._facts = facts
        self._dns = dns
        self._lock = threading.Lock()
        self._acquired: set[ContainerId] = set()
        self._joiners = ThreadPoolExecutor(max_workers=8, thread_name_prefix="lamina-join")
        self._neighbours = Neighbours(self._pid_of, self._shm_of, self._volume_path)

    def adopt(self, container: Container) -> None:
        """Count the mounted root of a container that an earlier daemon started as acquired, before it is recovered.

        Again is fine.
        """
        with self._lock:
            self._acquired.add(container.id)

    def hold_volumes(self, container: Container) -> list[str]:
        """Note which volumes a container uses, after a restart of the daemon; warnings for those that are gone."""
        warnings: list[str] = []
        for point in container.mounts.values():
            if point.type != "volume":
                continue
            try:
                self._volumes.hold(point.name, container.id)
            except (NoSuchVolume, OSError) as error:
                warnings.append(f"container {container.id[:12]}: volume {point.name}: {error}")
        return warnings

    # -- Resources, as the lifecycle knows them

    def acquire(self, container: Container) -> JsonObject:
        """Mount, join, prepare; returns the runtime spec. On error nothing stays acquired."""
        # The network takes the longest and needs nothing of the rest: it is joined at the same time.
        joining = self._joiners.submit(self._join, container)
        with contextlib.ExitStack() as undo:
            undo.callback(self._networks.leave, container.id)
            undo.callback(wait, (joining,))
            rootfs = self._layers.mount_rw(container.id)
            undo.callback(self._layers.unmount_rw, container.id)
            for point in container.mounts.values():
                if point.type == "volume":
                    self._volumes.hold(point.name, container.id)
            joined = joining.result()
            container.network_settings = joined.settings
            self._write_etc(container, joined)
            self._mount_shm(container)
            undo.callback(self._unmount_shm, container)
            inputs = gather(container, rootfs, self._facts, netns=joined.netns, neighbours=self._neighbours)
            spec = runtime_spec(inputs)
            undo.pop_all()
        with self._lock:
            self._acquired.add(container.id)
        return spec

    def release(self, container: Container) -> None:
        """The process is gone: unmount, leave. Again is fine."""
        with self._lock:
            was_acquired = container.id in self._acquired
            self._acquired.discard(container.id)
        self._networks.leave(container.id)
        self._unmount_shm(container)
        container.network_settings = without_addresses(container.network_settings)
        if was_acquired:
            # Conflict: it ended while no daemon was there, and the start has unmounted it already.
            with contextlib.suppress(Conflict):
                self._layers.unmount_rw(container.id)

    def discard(self, container: Container, *, volumes: bool) -> None:
        """The container is being removed: its writable layer, and its anonymous volumes if so asked. Again is fine."""
        self._layers.remove_rw(container.id)
        for point in container.mounts.values():
            if point.type != "volume":
                continue
            self._volumes.release(point.name, container.id)
            if volumes and self._is_disposable(point.name, point.spec):
                # Conflict: another container has come to use it, and keeps it.
                with contextlib.suppress(Conflict, NoSuchVolume):
                    self._volumes.remove(point.name)

    def close(self) -> None:
        """Wait for joins that are under way. Twice is fine."""
        self._joiners.shutdown(wait=True)

    # -- ProcessMaker, as exec knows it

    def exec_process(self, container: Container, order: ExecOrder) -> JsonObject:
        """The runtime's description of one more process. Users are looked up in what the container sees now.

        Raises:
            InvalidArgument: no such user.
        """
        root = Path(f"/proc/{container.state.pid}/root")
        wanted = order.user or text(container.config, "User")
        try:
            user = resolve_user(root, wanted, strings(container.host_config, "GroupAdd"))
        except FileNotFoundError as error:
            raise Conflict(f"container {container.id} is not running") from error
        inputs = SpecInputs(
            container_id=container.id,
            rootfs="",
            path=container.path,
            args=(),
            config=container.config,
            host_config=container.host_config,
            user=user,
            namespaces=Namespaces(),
            cgroup_path=f"{CGROUP_PARENT}/{container.id}",
            capabilities_available=self._facts.capabilities,
            machine=self._facts.machine,
            kernel=self._facts.kernel,
            cgroup_version=self._facts.cgroups.version,
            hard_limits=self._facts.hard_limits,
        )
        return exec_process(
            inputs, order.args, user, env=order.env, cwd=order.cwd, tty=order.tty, privileged=order.privileged
        )

    # -- network and /etc

    def _join(self, container: Container) -> Joined:
        mode = text(container.host_config, "NetworkMode")
        if mode.startswith("container:"):
            self._running(mode.removeprefix("container:"), "network")
        hostname = text(container.config, "Hostname")
        mac = text(container.config, "MacAddress") or None
        return self._networks.join(container.id, mode, hostname=hostname, mac=mac)

    def _write_etc(self, container: Container, joined: Joined) -> None:
        mode = self._networks.resolve_mode(text(container.host_config, "NetworkMode"))
        if mode.startswith("container:"):
            other = self._store.resolve(mode.removeprefix("container:"))
            container.hostname_path = other.hostname_path
            container.hosts_path = other.hosts_path
            container.resolv_conf_path = other.resolv_conf_path
            return
        directory = self._store.directory(container.id)
        etc.write_files(directory, self._etc_files(container, joined, shares_host=mode == "host"))
        container.hostname_path = os.fspath(directory / "hostname")
        container.hosts_path = os.fspath(directory / "hosts")
        container.resolv_conf_path = os.fspath(directory / "resolv.conf")

    def _etc_files(self, container: Container, joined: Joined, *, shares_host: bool) -> etc.EtcFiles:
        host = container.host_config
        hostname = text(container.config, "Hostname")
        extra = strings(host, "ExtraHosts")
        if shares_host:
            hosts = etc.shared_hosts_file(etc.read_host_hosts(), extra_hosts=extra, host_gateway=self._networks.gateway)
        else:
            hosts = etc.hosts_file(
                hostname,
                domain=text(container.config, "Domainname"),
                address=_address(joined.settings),
                extra_hosts=extra,
                host_gateway=self._networks.gateway,
            )
        choice = etc.DnsChoice(
            tuple(strings(host, "Dns")) or self._dns.nameservers,
            tuple(strings(host, "DnsSearch")) or self._dns.search,
            tuple(strings(host, "DnsOptions")) or self._dns.options,
        )
        resolv = etc.resolv_conf_file(
            etc.parse_resolv_conf(etc.read_host_resolv_conf()), choice, shares_host_network=shares_host
        )
        return etc.EtcFiles(etc.hostname_file(hostname), hosts, resolv)

    # -- shareable /dev/shm

    def _mount_shm(self, container: Container) -> None:
        if text(container.host_config, "IpcMode") != "shareable":
            return
        place = self._store.directory(container.id) / "mounts" / "shm"
        make_dirs(place, 0o700)
        container.shm_path = os.fspath(place)
        if not is_mountpoint(place):
            size = integer(container.host_config, "ShmSize") or DEFAULT_SHM_BYTES
            mount(Mount("tmpfs", "shm", place, flags=_NOSUID_NODEV_NOEXEC, data=f"mode=1777,size={size}"))

    def _unmount_shm(self, container: Container) -> None:
        if container.shm_path and is_mountpoint(Path(container.shm_path)):
            unmount(Path(container.shm_path), detach=True)

    # -- neighbours

    def _running(self, ref: str, what: str) -> Container:
        found = self._store.resolve(ref)
        if found.state.status not in _ALIVE:
            raise Conflict(f"cannot join {what} of a non running container: {found.id}")
        return found

    def _pid_of(self, ref: str) -> int:
        return self._running(ref, "namespace").state.pid

    def _shm_of(self, ref: str) -> str:
        found = self._running(ref, "IPC")
        if not found.shm_path:
            raise InvalidArgument(f"non-shareable IPC: container {found.id} (hint: use IpcMode:shareable for it)")
        return found.shm_path

    def _volume_path(self, name: str) -> str:
        return os.fspath(self._volumes.get(name).mountpoint)

    def _is_disposable(self, name: str, spec: JsonObject) -> bool:
        """Whether `rm -v` takes the volume: nobody gave it a name."""
        if text(spec, "Source"):
            return False
        try:
            volume = self._volumes.get(name)
        except NoSuchVolume:
            return False
        return volume.anonymous or (not volume.labels and _is_random(name))


_NOSUID_NODEV_NOEXEC = 2 | 4 | 8  # linux/mount.h: MS_NOSUID, MS_NODEV, MS_NOEXEC


def _is_random(name: str) -> bool:
    """Tell a random name: dockerd before 23.0 did not label anonymous volumes: they are known by their names alone."""
    return re.fullmatch(r"[0-9a-f]{64}", name) is not None


def _address(settings: JsonObject) -> IPv4Address | None:
    endpoint = stored_endpoint(settings, "bridge")
    return endpoint.address.ip if endpoint is not None and endpoint.address is not None else None


def alive(container: Container) -> bool:
    """Whether the record says that the container has processes."""
    return container.state.status in _ALIVE
