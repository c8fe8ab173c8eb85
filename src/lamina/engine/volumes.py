"""Make, list, look at and remove volumes (async)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lamina.jsonvalue import JsonObject, JsonValue
from lamina.volumes.store import LOCAL, Volume, VolumeStore
from lamina.wire.engine.filters import Filters, check_names
from lamina.workers import Workers

Publish: TypeAlias = Callable[[str, str, str, Mapping[str, str]], None]
_FILTERS = ("dangling", "driver", "label", "name")


@dataclass(frozen=True, slots=True)
class CreateVolume:
    """Make a volume, or give the one of this name."""

    volumes: VolumeStore
    workers: Workers
    publish: Publish

    async def __call__(
        self, name: str, *, driver: str, labels: Mapping[str, str], options: Mapping[str, str]
    ) -> JsonObject:
        """Raises InvalidArgument, NoSuchVolume (the driver), Unsupported."""
        volume = await self.workers.call(
            self.volumes.create, name or None, labels=labels, options=options, driver=driver
        )
        self.publish("volume", "create", volume.name, {"driver": LOCAL})
        return volume_body(volume)


@dataclass(frozen=True, slots=True)
class InspectVolume:
    """Everything about one volume."""

    volumes: VolumeStore
    workers: Workers

    async def __call__(self, name: str) -> JsonObject:
        """Raises NoSuchVolume."""
        return volume_body(await self.workers.call(self.volumes.get, name))


@dataclass(frozen=True, slots=True)
class ListVolumes:
    """The volumes that fit some filters."""

    volumes: VolumeStore
    workers: Workers

    async def __call__(self, filters: Filters) -> JsonObject:
        """Raises InvalidArgument for an unknown filter."""
        check_names(filters, _FILTERS)
        found = await self.workers.call(self.volumes.list)
        fitting: list[JsonValue] = [volume_body(volume) for volume in found if self._fits(volume, filters)]
        return {"Volumes": fitting, "Warnings": None}

    def _fits(self, volume: Volume, filters: Filters) -> bool:
        names, drivers = filters.get("name", ()), filters.get("driver", ())
        dangling = {value.lower() in {"1", "true"} for value in filters.get("dangling", ())}
        return (
            (not names or any(name in volume.name for name in names))
            and (not drivers or LOCAL in drivers)
            and all(_has_label(volume.labels, label) for label in filters.get("label", ()))
            and (not dangling or (not self.volumes.holders(volume.name)) in dangling)
        )


@dataclass(frozen=True, slots=True)
class RemoveVolume:
    """Remove a volume that no container uses."""

    volumes: VolumeStore
    workers: Workers
    publish: Publish

    async def __call__(self, name: str, *, force: bool) -> None:
        """Raises NoSuchVolume (not with `force`), Conflict."""
        await self.workers.call(self.volumes.remove, name, force=force)
        self.publish("volume", "destroy", name, {"driver": LOCAL})


def volume_body(volume: Volume) -> JsonObject:
    """A volume as the API shows it."""
    return {
        "CreatedAt": volume.created_at,
        "Driver": LOCAL,
        "Labels": dict(volume.labels) or None,
        "Mountpoint": str(volume.mountpoint),
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": "local",
    }


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
