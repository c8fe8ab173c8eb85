"""What list and inspect need to know of a container, collected from the stores (blocking; an engine module)."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.containers.record import Container, MountPoint
from lamina.errors import LaminaError, NotFound
from lamina.images.lookup import ImageLookup
from lamina.images.store import ImageStore
from lamina.jsonvalue import string_map, text
from lamina.layers.store import LayerStore
from lamina.oci.digest import ChainId
from lamina.storage.driver import StorageDriver
from lamina.volumes.store import VolumeStore
from lamina.wire.engine.containers import ContainerView, MountView, Sizes, StateView


@dataclass(frozen=True, slots=True)
class ContainerViews:
    """Makes the view of one container; what has gone missing beside it is left out, never an error."""

    images: ImageStore
    lookup: ImageLookup
    layers: LayerStore
    volumes: VolumeStore
    driver: StorageDriver

    def view(
        self, container: Container, *, size: bool = False, driver_data: bool = False, exec_ids: tuple[str, ...] = ()
    ) -> ContainerView:
        """The view at this moment."""
        return ContainerView(
            id=container.id,
            name=container.name,
            created=container.created,
            path=container.path,
            args=tuple(container.args),
            state=state_view(container),
            image=self._image_name(container),
            image_id=container.image_id or "",
            config=container.config,
            host_config=container.host_config,
            network_settings=container.network_settings,
            mounts=[self._mount(mount) for _, mount in sorted(container.mounts.items())],
            driver=container.driver,
            driver_data=self._driver_data(container) if driver_data else None,
            log_path=container.log_path,
            hostname_path=container.hostname_path,
            hosts_path=container.hosts_path,
            resolv_conf_path=container.resolv_conf_path,
            restart_count=container.restart_count,
            exec_ids=exec_ids,
            apparmor=text(container.extra, "AppArmorProfile"),
            labels=string_map(container.config, "Labels"),
            network_mode=text(container.host_config, "NetworkMode"),
            sizes=self.sizes(container) if size else None,
        )

    def sizes(self, container: Container) -> Sizes:
        """Bytes of the writable layer, and together with the image's layers. Reads the whole writable layer."""
        try:
            layer = self.layers.rw(container.id)
            written = self.layers.rw_usage(container.id).size_bytes
        except (NotFound, OSError):
            return Sizes(0, 0)
        total, chain = written, layer.parent
        while chain is not None:
            found = self.layers.get(chain)
            total += found.size_bytes
            chain = found.parent
        return Sizes(written, total)

    def top_layer(self, container: Container) -> ChainId | None:
        """The image layer that the container stands on."""
        try:
            return self.layers.rw(container.id).parent
        except NotFound:
            return None

    def _image_name(self, container: Container) -> str:
        """What the user called it, while that still is this image; else its id."""
        named = text(container.config, "Image")
        if container.image_id is None:
            return named
        try:
            return named if self.lookup.find(named) == container.image_id else container.image_id
        except LaminaError:
            return container.image_id

    def _mount(self, mount: MountPoint) -> MountView:
        source = mount.source
        if mount.type == "volume" and not source:
            try:
                source = str(self.volumes.get(mount.name).mountpoint)
            except NotFound:
                source = ""
        return MountView(
            type=mount.type,
            source=source,
            destination=mount.destination,
            rw=mount.rw,
            name=mount.name,
            driver=mount.driver,
            mode=mount.mode,
            propagation=mount.propagation,
        )

    def _driver_data(self, container: Container) -> dict[str, str] | None:
        try:
            return dict(self.driver.describe(self.layers.rw(container.id).mount_id))
        except (NotFound, OSError):
            return None


def state_view(container: Container) -> StateView:
    """The state as the API shows it."""
    state = container.state
    return StateView(
        status=state.status.value,
        pid=state.pid,
        exit_code=state.exit_code,
        error=state.error,
        oom_killed=state.oom_killed,
        started_at=state.started_at,
        finished_at=state.finished_at,
        health=state.health,
    )
