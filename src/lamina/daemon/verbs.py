"""Gives every verb its collaborators: the table of what this engine can be asked (async)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina import __version__
from lamina.clock import Clock
from lamina.containers.config import Defaults
from lamina.containers.execs import Execs
from lamina.containers.host import HostFacts
from lamina.containers.lifecycle import Lifecycle
from lamina.containers.store import ContainerStore
from lamina.containers.validate import Limits
from lamina.distribution.metadata import LayerMetadata
from lamina.distribution.registries import Registries
from lamina.distribution.transfers import Transfers
from lamina.engine import attach, commit, copy, disk_usage, info, pause, restart
from lamina.engine import events as watching
from lamina.engine import exec as execing
from lamina.engine import networks as network_verbs
from lamina.engine import volumes as volume_verbs
from lamina.engine.changes import Changes
from lamina.engine.container_view import ContainerViews
from lamina.engine.create import Create
from lamina.engine.distribution_inspect import InspectDistribution
from lamina.engine.export import Export
from lamina.engine.history import History
from lamina.engine.host import EngineFacts
from lamina.engine.import_ import Import
from lamina.engine.inspect import InspectContainer
from lamina.engine.inspect_image import InspectImage
from lamina.engine.kill import Kill
from lamina.engine.list_containers import ListContainers
from lamina.engine.list_images import ListImages
from lamina.engine.load import Load
from lamina.engine.login import LogIn
from lamina.engine.logs import Logs
from lamina.engine.merge_config import merge_config
from lamina.engine.prune_containers import PruneContainers
from lamina.engine.prune_images import PruneImages
from lamina.engine.prune_volumes import PruneVolumes
from lamina.engine.pull import Pull
from lamina.engine.pull_layers import PullLayers
from lamina.engine.push import Push
from lamina.engine.remove import Remove
from lamina.engine.remove_image import ImageUse, RemoveImage
from lamina.engine.rename import Rename
from lamina.engine.save import Save
from lamina.engine.services import Services
from lamina.engine.start import Start
from lamina.engine.stats import Stats
from lamina.engine.stop import Stop
from lamina.engine.surroundings import Surroundings, alive
from lamina.engine.tag import Tag
from lamina.engine.top import Top
from lamina.engine.unpack import Unpack
from lamina.engine.update import SetsLimits, Update
from lamina.engine.wait import Wait
from lamina.events import Events
from lamina.images.loading import ImageLoader
from lamina.images.lookup import ImageLookup
from lamina.images.saving import ImageSaver
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.images.unpacking import SpoolUnpacker
from lamina.layers.record import Layer
from lamina.layers.store import LayerStore
from lamina.networks.networks import Networks
from lamina.oci.digest import ImageId
from lamina.oci.platform import Platform
from lamina.storage.driver import StorageDriver
from lamina.volumes.store import VolumeStore
from lamina.workers import Workers


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that verbs are made from."""

    driver: StorageDriver
    layers: LayerStore
    images: ImageStore
    tags: TagStore
    lookup: ImageLookup
    containers: ContainerStore
    volumes: VolumeStore
    networks: Networks
    surroundings: Surroundings
    runtime: SetsLimits
    lifecycle: Lifecycle
    execs: Execs
    registries: Registries
    transfers: Transfers[Layer]
    metadata: LayerMetadata
    unpack: Unpack
    events: Events
    clock: Clock
    workers: Workers
    platform: Platform
    facts: EngineFacts
    host: HostFacts
    data_root: Path


def services(parts: Parts) -> Services:
    """Every verb, made."""
    return Services(**_engine(parts), **_images(parts), **_containers(parts), **_streams(parts), **_around(parts))


def _engine(p: Parts) -> dict[str, Any]:
    listing = _list_containers(p)
    return {
        "info": info.Info(p.facts, p.driver, p.containers, p.images, p.events, p.clock, p.workers),
        "version": info.EngineVersion(p.facts, p.workers),
        "events": watching.WatchEvents(p.events, p.clock),
        "disk_usage": disk_usage.DiskUsage(p.images, p.tags, p.layers, p.containers, p.volumes, listing, p.workers),
    }


def _images(p: Parts) -> dict[str, Any]:
    publish = p.events.publish
    pull_layers = PullLayers(p.registries, p.transfers, p.layers, p.metadata, p.unpack, p.workers)
    loader = ImageLoader(p.layers, p.images, p.tags, unpack=SpoolUnpacker(p.unpack.pool), scratch=p.data_root / "tmp")
    saver = ImageSaver(p.layers, p.images, p.tags, p.lookup)
    uses = _uses(p.containers)
    remove = RemoveImage(p.images, p.tags, p.lookup, uses, p.workers, publish)
    return {
        "pull": Pull(p.registries, pull_layers, p.images, p.tags, p.workers, publish, p.platform),
        "inspect_distribution": InspectDistribution(p.registries),
        "log_in": LogIn(p.registries),
        "push": Push(p.registries, p.layers, p.images, p.tags, p.metadata, p.workers, publish, p.data_root / "tmp"),
        "load": Load(loader, p.images, p.workers, publish),
        "save": Save(saver, p.images, p.workers, publish),
        "import_": Import(p.layers, p.images, p.tags, p.platform, p.clock, p.workers, publish, __version__),
        "tag": Tag(p.images, p.tags, p.lookup, p.clock, p.workers, publish),
        "remove_image": remove,
        "prune_images": PruneImages(p.images, p.tags, p.layers, uses, remove, p.clock, publish),
        "list_images": ListImages(p.images, p.tags, p.lookup, p.layers, p.clock),
        "inspect_image": InspectImage(p.images, p.tags, p.lookup, p.layers, p.driver, p.workers),
        "history": History(p.images, p.tags, p.lookup, p.layers),
    }


def _containers(p: Parts) -> dict[str, Any]:
    store, lifecycle = p.containers, p.lifecycle
    remove = Remove(store, lifecycle)
    return {
        "create": Create(
            store, p.images, p.lookup, p.layers, p.volumes, p.networks, p.events, p.workers, p.clock,
            p.driver.name, p.data_root, _defaults(p), _limits(p), p.platform,
        ),
        "start": Start(store, lifecycle),
        "stop": Stop(store, lifecycle),
        "restart": restart.Restart(store, lifecycle),
        "kill": Kill(store, lifecycle),
        "pause": pause.Pause(store, lifecycle),
        "unpause": pause.Unpause(store, lifecycle),
        "wait": Wait(store, lifecycle),
        "remove": remove,
        "prune_containers": PruneContainers(store, p.layers, remove, p.clock, p.workers, p.events.publish),
        "update": Update(store, lifecycle, p.runtime, _limits(p), p.host.cgroups.version, p.workers),
        "rename": Rename(store, p.events, p.workers),
        "inspect": InspectContainer(store, _views(p), p.workers, p.execs.ids_of),
        "list_containers": _list_containers(p),
        "top": Top(store, lifecycle, p.host.cgroups, p.workers),
        "stats": Stats(store, p.host.cgroups, p.clock, p.workers),
        "changes": Changes(store, p.layers, p.workers),
        "commit": commit.Commit(
            store, p.layers, p.images, p.tags, lifecycle, merge_config, p.clock, p.workers, p.events.publish
        ),
    }  # fmt: skip


def _streams(p: Parts) -> dict[str, Any]:
    store, lifecycle = p.containers, p.lifecycle
    roots = copy.Roots(p.layers, p.volumes)
    return {
        "attach": attach.Attach(store, lifecycle, p.workers),
        "logs": Logs(store, lifecycle, p.workers, p.clock),
        "resize": attach.Resize(store, lifecycle),
        "export": Export(store, p.layers, p.workers, p.events.publish),
        "stat_path": copy.StatPath(store, roots, p.workers),
        "copy_out": copy.CopyOut(store, roots, p.workers, lifecycle),
        "copy_in": copy.CopyIn(store, roots, p.workers, lifecycle),
        "exec_create": execing.ExecCreate(store, lifecycle, p.execs),
        "exec_start": execing.ExecStart(store, lifecycle, p.execs, p.surroundings),
        "exec_inspect": execing.ExecInspect(p.execs),
        "exec_resize": execing.ExecResize(p.execs),
    }


def _around(p: Parts) -> dict[str, Any]:
    publish = p.events.publish
    return {
        "create_volume": volume_verbs.CreateVolume(p.volumes, p.workers, publish),
        "list_volumes": volume_verbs.ListVolumes(p.volumes, p.workers),
        "inspect_volume": volume_verbs.InspectVolume(p.volumes, p.workers),
        "remove_volume": volume_verbs.RemoveVolume(p.volumes, p.workers, publish),
        "prune_volumes": PruneVolumes(p.volumes, p.clock, p.workers, publish),
        "list_networks": network_verbs.ListNetworks(p.networks, p.workers),
        "inspect_network": network_verbs.InspectNetwork(p.networks, p.containers, p.workers),
    }


def _views(p: Parts) -> ContainerViews:
    return ContainerViews(p.images, p.lookup, p.layers, p.volumes, p.driver)


def _list_containers(p: Parts) -> ListContainers:
    return ListContainers(p.containers, _views(p), p.images, p.lookup, p.workers, p.clock)


def _defaults(p: Parts) -> Defaults:
    return Defaults(
        runtime=p.facts.runtimes[0].name,
        network_mode=p.networks.default_mode,
        cgroup_version=p.host.cgroups.version,
        host_name=os.uname().nodename,
    )


def _limits(p: Parts) -> Limits:
    cgroups = p.host.cgroups
    return Limits(
        controllers=[name for name in ("cpu", "cpuset", "memory", "blkio", "io", "pids") if cgroups.can(name)],
        limits_swap=cgroups.limits_swap,
        cpus=len(os.sched_getaffinity(0)),
        runtimes=[program.name for program in p.facts.runtimes],
        hard_limits=p.host.hard_limits,
        raises_limits="CAP_SYS_RESOURCE" in p.host.capabilities,
    )


def _uses(containers: ContainerStore) -> Callable[[ImageId], Iterable[ImageUse]]:
    """Which containers use an image, as `rmi` asks."""

    def uses(image: ImageId) -> Iterable[ImageUse]:
        return [ImageUse(one.id, alive(one)) for one in containers.all() if one.image_id == image]

    return uses
