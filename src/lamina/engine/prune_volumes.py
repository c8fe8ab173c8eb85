"""Remove the volumes that no container uses (async).

Source: moby volume/service/service.go, Prune.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina.clock import Clock
from lamina.engine.disk_usage import tree_bytes
from lamina.engine.prune_filters import flag, prune_choice
from lamina.engine.volumes import Publish
from lamina.errors import Conflict, NotFound
from lamina.jsonvalue import JsonObject, JsonValue
from lamina.volumes.store import ANONYMOUS_LABEL, LOCAL, VolumeStore
from lamina.wire.engine.filters import Filters
from lamina.workers import Workers

_FILTERS = frozenset({"all", "label", "label!"})


@dataclass(frozen=True, slots=True)
class PruneVolumes:
    """Remove anonymous volumes that nobody uses, or with `all=true` those with names too.

    A volume with mount options stays: its data may be elsewhere.
    """

    volumes: VolumeStore
    clock: Clock
    workers: Workers
    publish: Publish

    async def __call__(self, filters: Filters) -> JsonObject:
        """The names that went, and the bytes of their data.

        Raises:
            InvalidArgument: a filter or a value that nothing understands.
        """
        choice = prune_choice(filters, _FILTERS, self.clock.now_ns())
        named_too = flag(filters, "all", default=False)
        gone: list[JsonValue] = []
        reclaimed = 0
        for volume in await self.workers.call(self.volumes.list):
            is_wanted = named_too or ANONYMOUS_LABEL in volume.labels
            if volume.options or not is_wanted or not choice.fits(0, volume.labels):
                continue
            if self.volumes.holders(volume.name):
                continue
            size = await self.workers.call(tree_bytes, volume.mountpoint)
            try:
                await self.workers.call(self.volumes.remove, volume.name)
            except (Conflict, NotFound):
                continue
            self.publish("volume", "destroy", volume.name, {"driver": LOCAL})
            gone.append(volume.name)
            reclaimed += size
        self.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return {"VolumesDeleted": gone or None, "SpaceReclaimed": reclaimed}
