"""Real stores in a directory, with one image and a way to make containers of it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lamina.clock import SystemClock
from lamina.containers.record import Container
from lamina.containers.store import ContainerStore
from lamina.ids import new_container_id
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.jsonvalue import JsonObject
from lamina.kernel.mounts import mount_table, unmount
from lamina.layers.init import init_layer
from lamina.layers.store import LayerStore
from lamina.oci.config import encode_config
from lamina.oci.digest import ImageId
from lamina.storage.mounting import Mounts
from lamina.storage.select import choose_driver
from lamina.volumes.store import VolumeStore
from lamina.workers import Workers

RUN: JsonObject = {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"made": "here"}, "WorkingDir": "/w"}


def tar_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


@dataclass
class Stores:
    """Everything a verb may need; `told` are the events."""

    root: Path
    driver_name: str
    told: list[tuple[str, str, str, Mapping[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.driver = choose_driver(self.root, self.driver_name, {})
        self.layers = LayerStore(self.root / "layerdb", self.driver, Mounts(self.driver))
        self.layers.load()
        for part in ("imagedb", "containers"):
            (self.root / part).mkdir()
        self.images = ImageStore(self.root / "imagedb", self.layers)
        self.images.load()
        self.tags = TagStore(self.root / "repositories.json")
        self.tags.load()
        self.containers = ContainerStore(self.root / "containers", self.driver_name)
        self.volumes = VolumeStore(self.root / "volumes")
        self.volumes.open()
        self.workers = Workers(4)
        self.clock = SystemClock()
        self.image = self._image()

    def _image(self) -> ImageId:
        data = {"etc/passwd": b"root:x:0:0::/:/bin/sh\napp:x:12:34::/:/bin/sh\n", "bin/sh": b"#!", "data/old": b"old"}
        layer = self.layers.register(io.BytesIO(tar_of(data)), None)
        self.top = layer.chain_id
        raw = encode_config({
            "architecture": "amd64", "os": "linux", "config": RUN, "created": "2020-01-01T00:00:00Z",
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}, "history": [{"created_by": "test"}],
        })  # fmt: skip
        image = self.images.put(raw)
        self.layers.release(layer.chain_id)
        return image

    def container(self, name: str = "box", *, host_config: JsonObject | None = None, user: str = "") -> Container:
        container = Container(
            id=new_container_id(), name=name, created="2020-01-01T00:00:00Z", path="sh", args=[],
            config={**RUN, "Image": "test", "User": user, "Hostname": "box"}, host_config=host_config or {},
            image_id=self.image, driver=self.driver_name,
        )  # fmt: skip
        self.layers.create_rw(container.id, self.top, prepare=init_layer)
        self.containers.add(container)
        return container

    def write(self, container: Container, name: str, content: str) -> None:
        root = self.layers.mount_rw(container.id)
        try:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        finally:
            self.layers.unmount_rw(container.id)

    def read(self, container: Container, name: str) -> str:
        root = self.layers.mount_rw(container.id)
        try:
            return (root / name).read_text()
        finally:
            self.layers.unmount_rw(container.id)

    def publish(self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str]) -> None:
        self.told.append((kind, action, actor_id, attributes))

    def tell(self, container: Container, action: str, **more: str) -> None:
        self.publish("container", action, container.id, more)

    def close(self) -> None:
        for entry in reversed(mount_table()):  # what a test that failed half way left
            if entry.target.startswith(f"{self.root}/"):
                unmount(Path(entry.target), detach=True)
        for name in self.layers.rw_names():
            self.layers.remove_rw(name)
        self.volumes.close()
        self.driver.close()
        self.workers.close()
