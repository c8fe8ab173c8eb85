"""Create a container (async).

Everything a container is made of is acquired in one order and undone in the other: name, volumes, writable layer,
record. The record comes last and durably: a crash before it leaves garbage that the next start sweeps, never half a
container.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lamina.clock import Clock, rfc3339
from lamina.containers.config import Defaults, complete_config, complete_host_config
from lamina.containers.mountpoints import WantedMount, wanted_mounts
from lamina.containers.names import TRIES, made_up_name, parse_name
from lamina.containers.record import Container, MountPoint
from lamina.containers.security import SecurityOptions
from lamina.containers.size_limit import size_limit
from lamina.containers.store import ContainerStore
from lamina.containers.validate import Limits, validate
from lamina.engine.endpoint_request import mac_address, network_settings_of
from lamina.engine.first_content import FirstContent
from lamina.engine.merge_config import merge_config
from lamina.errors import Conflict, InvalidArgument, NameInUse, NoSuchContainer, NoSuchImage, NoSuchVolume
from lamina.ids import ContainerId, new_container_id, random_id
from lamina.images.lookup import ImageLookup
from lamina.images.store import ImageStore
from lamina.jsonvalue import JsonObject, string_map, strings, text
from lamina.layers.store import LayerStore
from lamina.oci.config import ImageConfig
from lamina.oci.digest import ChainId, ImageId
from lamina.oci.platform import Platform, matches
from lamina.volumes.store import ANONYMOUS_LABEL, Volume, VolumeStore
from lamina.workers import Workers

LOCAL_DRIVER = "local"
_MOST_KNOWN = 4096


class NetworkModes(Protocol):
    """What create needs of the networks."""

    @property
    def default_mode(self) -> str: ...

    def resolve_mode(self, mode: str) -> str:
        """Raises NotServed for a user-defined network."""


class EventSink(Protocol):
    """Where events go."""

    def publish(self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Created:
    """A new container, and what the user should know about it."""

    id: ContainerId
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Request:
    name: str | None
    config: JsonObject
    host_config: JsonObject
    networking: JsonObject
    platform: Platform | None


@dataclass(slots=True)
class _Making:
    """A container on its way."""

    id: ContainerId
    image: ImageConfig | None
    config: JsonObject
    host_config: JsonObject
    warnings: list[str]
    mounts: dict[str, MountPoint] = field(default_factory=dict)
    new_volumes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Create:
    """Make a container from an image, ready to be started."""

    containers: ContainerStore
    images: ImageStore
    lookup: ImageLookup
    layers: LayerStore
    volumes: VolumeStore
    networks: NetworkModes
    events: EventSink
    workers: Workers
    clock: Clock
    driver_name: str
    data_root: Path
    defaults: Defaults
    limits: Limits
    host_platform: Platform
    known_directories: dict[tuple[ChainId | None, str], bool] = field(default_factory=dict)
    """Whether an image has a working directory, once somebody looked."""

    async def __call__(
        self,
        name: str | None,
        config: JsonObject,
        host_config: JsonObject,
        networking: JsonObject,
        platform: Platform | None = None,
    ) -> Created:
        """Make it; on error nothing is left.

        Raises:
            InvalidArgument: what is asked for makes no sense.
            NameInUse: another container has the name.
            NoSuchImage: no such image, or not for this platform.
            NotServed: it asks for something that comes later; named.
        """
        request = _Request(name, config, host_config, networking, platform)
        container, making = await self.workers.call(self._create, request)
        for volume in making.new_volumes:
            self.events.publish("volume", "create", volume, {"driver": LOCAL_DRIVER})
        attributes = string_map(container.config, "Labels")
        attributes.update({"image": text(container.config, "Image"), "name": container.name})
        self.events.publish("container", "create", container.id, attributes)
        return Created(container.id, tuple(making.warnings))

    def _create(self, request: _Request) -> tuple[Container, _Making]:
        if not request.config:
            raise InvalidArgument("Config cannot be empty in order to create a container")
        wanted_name = parse_name(request.name) if request.name else None
        making = self._plan(request)
        with ExitStack() as undo:
            name = self._reserve_name(wanted_name, making.id)
            undo.callback(self.containers.release_name, name)
            self.containers.unfinished.begin(making.id)
            undo.callback(self.containers.unfinished.end, making.id)
            fresh = self._make_mounts(making, undo)
            self._make_layer(making, fresh, undo)
            container = self._container(making, name, request)
            self.containers.add(container)
            self.containers.unfinished.end(making.id)
            undo.pop_all()
        return container, making

    # -- what is wanted ----------------------------------------------------------------------------------------

    def _plan(self, request: _Request) -> _Making:
        """Everything that can be refused without having done anything."""
        image, warnings = self._image(request)
        config = merge_config(request.config, image.run if image else {})
        if strings(config, "Entrypoint") == [""]:
            config["Entrypoint"] = None  # how `--entrypoint ""` says: none at all
        mac = mac_address(request.networking)
        if mac:
            config["MacAddress"] = mac
        defaults = self.defaults
        host_config = complete_host_config(request.host_config, defaults)
        host_config["NetworkMode"] = self.networks.resolve_mode(text(host_config, "NetworkMode"))
        warnings += validate(config, host_config, self.limits)
        _resolve_neighbours(config, host_config, self.containers)
        container_id = new_container_id()
        completed = complete_config(config, container_id, host_config, defaults.host_name)
        return _Making(container_id, image, completed, host_config, warnings)

    def _image(self, request: _Request) -> tuple[ImageConfig | None, list[str]]:
        wanted = text(request.config, "Image")
        if not wanted:
            return None, []
        image = self.images.get(self.lookup.find(wanted))
        if request.platform is not None:
            if not matches(request.platform, image.platform):
                raise NoSuchImage(
                    f"image with reference {wanted} was found but does not provide the specified platform "
                    f"({request.platform})"
                )
        elif not matches(self.host_platform, image.platform):
            warning = (
                f"The requested image's platform ({image.platform}) does not match the detected host platform "
                f"({self.host_platform}) and no specific platform was requested"
            )
            return image, [warning]
        return image, []

    def _reserve_name(self, wanted: str | None, container_id: ContainerId) -> str:
        if wanted is not None:
            self.containers.reserve_name(wanted, container_id)
            return wanted
        for _ in range(TRIES):
            name = made_up_name(secrets.choice)
            try:
                self.containers.reserve_name(name, container_id)
            except NameInUse:
                continue
            return name
        self.containers.reserve_name(container_id[:12], container_id)
        return container_id[:12]

    # -- mounts ------------------------------------------------------------------------------------------------

    def _make_mounts(self, making: _Making, undo: ExitStack) -> list[tuple[Volume, str]]:
        """Find or make every volume; those that may be filled from the image, with their place in it."""
        self._borrow_mounts(making, undo)
        fresh: list[tuple[Volume, str]] = []
        for wanted in wanted_mounts(making.config, making.host_config, str(self.data_root)):
            asked_by_user = bool(wanted.source) or bool(wanted.spec) or wanted.kind != "volume"
            if wanted.destination in making.mounts and not asked_by_user:
                continue  # an image's volume that another container's mount stands in for
            if wanted.kind == "volume":
                volume = self._volume(wanted, making, undo)
                making.mounts[wanted.destination] = _volume_mount(wanted, volume)
                if wanted.copies:
                    fresh.append((volume, wanted.destination))
                continue
            if wanted.must_exist and not Path(wanted.source).exists():
                raise InvalidArgument(
                    f'invalid mount config for type "bind": bind source path does not exist: {wanted.source}'
                )
            making.mounts[wanted.destination] = _other_mount(wanted)
        return fresh

    def _borrow_mounts(self, making: _Making, undo: ExitStack) -> None:
        """`--volumes-from`."""
        for entry in strings(making.host_config, "VolumesFrom"):
            ref, _, mode = entry.partition(":")
            if mode not in {"", "ro", "rw", "z", "Z"}:
                raise InvalidArgument(f"invalid mode: {mode[:80]}")
            for mount in _neighbour(ref, self.containers).mounts.values():
                if mount.type == "volume":
                    self._hold(mount.name, making.id, undo)
                making.mounts[mount.destination] = MountPoint(
                    mount.type, mount.source, mount.destination, rw=mount.rw and mode != "ro", name=mount.name,
                    driver=mount.driver, mode=mode or mount.mode, propagation=mount.propagation, spec=dict(mount.spec),
                    skip_create=mount.skip_create,
                )  # fmt: skip

    def _volume(self, wanted: WantedMount, making: _Making, undo: ExitStack) -> Volume:
        is_new = not (wanted.source and self._has_volume(wanted.source))
        name, labels = wanted.source, dict(wanted.labels)
        if not name:
            name = random_id()
            labels.setdefault(ANONYMOUS_LABEL, "")
            self.containers.unfinished.add_volume(making.id, name)
        volume = self.volumes.create(
            name,
            labels=labels,
            options=dict(wanted.options),
            driver=wanted.driver or LOCAL_DRIVER,
        )
        if is_new:
            undo.callback(self._remove_volume, volume.name)
            making.new_volumes.append(volume.name)
        return self._hold(volume.name, making.id, undo)

    def _has_volume(self, name: str) -> bool:
        try:
            self.volumes.get(name)
        except NoSuchVolume:
            return False
        return True

    def _remove_volume(self, name: str) -> None:
        with suppress(Conflict):  # another create found it in the meantime and uses it
            self.volumes.remove(name, force=True)

    def _hold(self, volume: str, container_id: ContainerId, undo: ExitStack) -> Volume:
        held = self.volumes.hold(volume, container_id)
        undo.callback(self.volumes.release, volume, container_id)
        return held

    # -- layer and record --------------------------------------------------------------------------------------

    def _make_layer(self, making: _Making, fresh: Sequence[tuple[Volume, str]], undo: ExitStack) -> None:
        directory = text(making.config, "WorkingDir")
        content = FirstContent(self.volumes, fresh, directory)
        self.layers.create_rw(
            making.id,
            making.image.top if making.image else None,
            prepare=content.prepare,
            limit_bytes=size_limit(making.host_config),
            alike=content.alike,
        )
        undo.callback(self.layers.remove_rw, making.id)
        place = (making.image.top if making.image else None, directory)
        if content.lacks_working_directory is not None:
            if len(self.known_directories) >= _MOST_KNOWN:
                self.known_directories.clear()
            self.known_directories[place] = not content.lacks_working_directory
        # Not known, and not looked for: making a directory that is there does no harm.
        if directory and not self.known_directories.get(place):
            root = self.layers.mount_rw(making.id)
            try:
                content.make_working_directory(root)
            finally:
                self.layers.unmount_rw(making.id)

    def _container(self, making: _Making, name: str, request: _Request) -> Container:
        command = [*strings(making.config, "Entrypoint"), *strings(making.config, "Cmd")]
        security = SecurityOptions.parse(strings(making.host_config, "SecurityOpt"))
        return Container(
            id=making.id,
            name=name,
            created=rfc3339(self.clock.now_ns()),
            path=command[0],
            args=command[1:],
            config=making.config,
            host_config=making.host_config,
            image_id=ImageId(making.image.image_id) if making.image else None,
            driver=self.driver_name,
            mounts=making.mounts,
            network_settings=network_settings_of(text(making.host_config, "NetworkMode"), request.networking),
            extra={
                "AppArmorProfile": security.apparmor,
                "SeccompProfile": security.seccomp,
                "NoNewPrivileges": security.no_new_privileges,
            },
        )


def _resolve_neighbours(config: JsonObject, host_config: JsonObject, containers: ContainerStore) -> None:
    """Every `container:X` names a container that exists; its id is kept, so that it may be renamed."""
    for key in ("NetworkMode", "PidMode", "IpcMode"):
        mode = text(host_config, key)
        if not mode.startswith("container:"):
            continue
        other = _neighbour(mode.removeprefix("container:"), containers)
        host_config[key] = f"container:{other.id}"
        if key == "NetworkMode":
            # Who shares a network shares the name in it: its /etc/hosts is the other one's.
            config["Hostname"] = text(other.config, "Hostname")
            config["Domainname"] = text(other.config, "Domainname")


def _neighbour(ref: str, containers: ContainerStore) -> Container:
    """Another container that a request names. A 404 would make the docker client pull the image again: say 400."""
    try:
        return containers.resolve(ref)
    except NoSuchContainer as error:
        raise InvalidArgument(error.message) from error


def _volume_mount(wanted: WantedMount, volume: Volume) -> MountPoint:
    return MountPoint(
        "volume",
        str(volume.mountpoint) if wanted.source else "",  # Docker keeps no path for anonymous ones
        wanted.destination,
        rw=wanted.rw,
        name=volume.name,
        driver=LOCAL_DRIVER,
        mode=wanted.mode,
        spec=wanted.spec,
    )


def _other_mount(wanted: WantedMount) -> MountPoint:
    return MountPoint(
        wanted.kind,
        wanted.source,
        wanted.destination,
        rw=wanted.rw,
        mode=wanted.mode,
        propagation=wanted.propagation,
        spec=wanted.spec,
        skip_create=wanted.must_exist,
    )
