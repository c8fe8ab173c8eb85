"""Builds every object of the engine, once, in the order in which each needs the others (async)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import platform as machine
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina import __version__
from lamina.clock import SystemClock
from lamina.containers import host as container_host
from lamina.containers.execs import Execs
from lamina.containers.lifecycle import Lifecycle
from lamina.containers.recover import recover
from lamina.containers.runtime import MonitoredRuntime, prepare_runtime
from lamina.containers.store import ContainerStore
from lamina.daemon import dataroot
from lamina.daemon.config import DaemonConfig
from lamina.daemon.verbs import Parts, services
from lamina.distribution.metadata import LayerMetadata
from lamina.distribution.registries import Registries
from lamina.distribution.registry_config import RegistryConfig, parse_config
from lamina.distribution.transfers import Transfers
from lamina.engine.health import HealthMonitors
from lamina.engine.host import EngineFacts, Program, engine_id
from lamina.engine.services import Services
from lamina.engine.surroundings import DnsDefaults, Surroundings, alive
from lamina.engine.unpack import Unpack
from lamina.errors import InvalidArgument, LaminaError
from lamina.events import Events
from lamina.images.lookup import ImageLookup
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.layers.pool import WorkerPool
from lamina.layers.record import Layer
from lamina.layers.store import LayerStore
from lamina.migration.settle import settle_for_daemon
from lamina.networks.networks import Networks
from lamina.oci.platform import host_platform
from lamina.programs.oci_runtime import CANDIDATES
from lamina.storage.driver import StorageDriver
from lamina.storage.mounting import Mounts
from lamina.storage.select import choose_driver, survey
from lamina.volumes.store import VolumeStore
from lamina.workers import Workers

_log = logging.getLogger("lamina.daemon")


@dataclass(frozen=True, slots=True)
class Engine:
    """What serving needs."""

    services: Services
    driver: str


@dataclass(frozen=True, slots=True)
class _Stores:
    """What lies on disk, opened and read."""

    driver: StorageDriver
    mounts: Mounts
    layers: LayerStore
    images: ImageStore
    tags: TagStore
    containers: ContainerStore
    volumes: VolumeStore


@dataclass(frozen=True, slots=True)
class _Ground:
    """What the event loop stands on: everything blocking, ready for use."""

    stores: _Stores
    runtime: MonitoredRuntime
    networks: Networks
    host: container_host.HostFacts
    surroundings: Surroundings
    facts: EngineFacts


@contextlib.asynccontextmanager
async def open_engine(config: DaemonConfig) -> AsyncIterator[Engine]:
    """The engine on its data root, recovered; closed in reverse order. Containers go on when it closes.

    Raises:
        Conflict: another daemon has the data root.
        LaminaError: a driver, program or record that cannot be used.
    """
    async with contextlib.AsyncExitStack() as undo:
        workers = Workers()
        undo.callback(workers.close)
        pool = WorkerPool()
        undo.callback(pool.close)
        ground = await workers.call(_open_ground, config, pool, undo)
        stores = ground.stores
        clock = SystemClock()
        events = Events(clock)
        tasks = await undo.enter_async_context(asyncio.TaskGroup())
        lifecycle = Lifecycle(
            store=stores.containers,
            runtime=ground.runtime,
            resources=ground.surroundings,
            events=events,
            workers=workers,
            clock=clock,
            tasks=tasks,
        )
        undo.push_async_callback(lifecycle.aclose)
        execs = Execs(ground.runtime, workers)
        lifecycle.when_removed(execs.forget_container)
        health = HealthMonitors(stores.containers, lifecycle, execs, ground.surroundings, workers, clock, tasks)
        lifecycle.when_running(health.watch)
        undo.push_async_callback(health.aclose)
        registries = Registries(_registry_config(config), workers)
        undo.push_async_callback(registries.aclose)
        transfers = await undo.enter_async_context(Transfers[Layer](_releasing(stores.layers, workers)))
        recovered = await recover(store=stores.containers, runtime=ground.runtime, lifecycle=lifecycle, workers=workers)
        _log.info("%d containers live on, %d ended meanwhile", len(recovered.adopted), len(recovered.ended))
        parts = Parts(
            **_from_ground(ground),
            lookup=ImageLookup(stores.images, stores.tags),
            lifecycle=lifecycle,
            execs=execs,
            registries=registries,
            transfers=transfers,
            metadata=LayerMetadata(config.data_root / "image" / stores.driver.name / "distribution"),
            unpack=Unpack(stores.layers, pool, workers),
            events=events,
            clock=clock,
            workers=workers,
            platform=host_platform(machine.machine()),
            data_root=config.data_root,
        )
        yield Engine(services(parts), stores.driver.name)


def _from_ground(ground: _Ground) -> dict[str, Any]:
    stores = ground.stores
    return {
        "driver": stores.driver,
        "layers": stores.layers,
        "images": stores.images,
        "tags": stores.tags,
        "containers": stores.containers,
        "volumes": stores.volumes,
        "networks": ground.networks,
        "runtime": ground.runtime,
        "surroundings": ground.surroundings,
        "facts": ground.facts,
        "host": ground.host,
    }


def _open_ground(config: DaemonConfig, pool: WorkerPool, undo: contextlib.AsyncExitStack) -> _Ground:
    """Blocking: open and read everything, and take up what an earlier daemon left running."""
    stores = _open_stores(config, pool, undo)
    runtime = prepare_runtime(config.exec_root, _candidates(config))
    networks = _open_networks(config, stores.containers, undo)
    host = container_host.detect(_init_path(config))
    surroundings = Surroundings(
        store=stores.containers,
        layers=stores.layers,
        networks=networks,
        volumes=stores.volumes,
        facts=host,
        dns=DnsDefaults(config.dns, config.dns_search, config.dns_opts),
    )
    undo.callback(surroundings.close)
    _take_up(stores, surroundings)
    return _Ground(stores, runtime, networks, host, surroundings, _engine_facts(config, runtime, host))


def _open_stores(config: DaemonConfig, pool: WorkerPool, undo: contextlib.AsyncExitStack) -> _Stores:
    """Blocking. The volumes come first: their file carries the lock that keeps every other daemon out."""
    volumes = VolumeStore(config.data_root / "volumes")
    warn(volumes.open())
    undo.callback(volumes.close)
    warn(settle_for_daemon(config.data_root))
    dataroot.sweep_scratch(config.data_root)
    driver = choose_driver(config.data_root, config.storage_driver or None, config.storage_opts)
    undo.callback(driver.close)
    mounts = Mounts(driver)
    home = config.data_root / "image" / driver.name
    layers = LayerStore(home / "layerdb", driver, mounts, pool)
    damage = [*layers.load()]
    images = ImageStore(home / "imagedb", layers)
    damage += images.load()
    warn(damage)
    tags = TagStore(home / "repositories.json")
    warn(tags.load())
    containers = ContainerStore(config.data_root / "containers", driver.name)
    warn(containers.load(layers.rw_names()))
    warn(_undo_creations(containers, layers, volumes))
    # A damaged record may be repaired one day, so its layers are not judged by the records that are left.
    for chain in () if damage else layers.remove_unheld():
        _log.info("removed layer %s: the image it was made for was never finished", chain)
    return _Stores(driver, mounts, layers, images, tags, containers, volumes)


def _undo_creations(containers: ContainerStore, layers: LayerStore, volumes: VolumeStore) -> list[str]:
    """Blocking: what the daemon before was killed over goes; what cannot go now is tried at the next start."""
    warnings: list[str] = []
    for left in containers.unfinished.interrupted():
        try:
            layers.remove_unfinished_rw(left.container_id)
            for volume in left.volumes:
                volumes.remove(volume, force=True)
            containers.unfinished.end(left.container_id)
        except (LaminaError, OSError) as error:
            warnings.append(f"the unfinished container {left.container_id[:12]} cannot be removed: {error}")
    return warnings


def _open_networks(config: DaemonConfig, containers: ContainerStore, undo: contextlib.AsyncExitStack) -> Networks:
    networks = Networks(
        config.data_root / "network" / "files", config.exec_root, bridge=config.bridge or None, bip=config.bip or None
    )
    live = {container.id: container.network_settings for container in containers.all() if alive(container)}
    warn(networks.start(live) or ())
    undo.callback(networks.close)
    return networks


def _take_up(stores: _Stores, surroundings: Surroundings) -> None:
    """Blocking: what live containers use stays mounted, everything else that an earlier daemon left is unmounted."""
    live = {stores.layers.rw(one.id).mount_id: one for one in stores.containers.all() if alive(one)}
    stores.mounts.recover(set(live))
    for mount_id, container in live.items():
        if stores.mounts.count(mount_id):
            surroundings.adopt(container)
    for container in stores.containers.all():
        warn(surroundings.hold_volumes(container))


def _releasing(layers: LayerStore, workers: Workers) -> Callable[[Layer], Awaitable[None]]:
    async def release(layer: Layer) -> None:
        await workers.call(layers.release, layer.chain_id)

    return release


def _registry_config(config: DaemonConfig) -> RegistryConfig:
    return parse_config(
        config.registry_mirrors,
        config.insecure_registries,
        certs_dirs=(config.certs_dir,),
        max_concurrent_downloads=config.max_concurrent_downloads,
    )


def _candidates(config: DaemonConfig) -> tuple[str, ...]:
    wanted = config.default_runtime
    if wanted and wanted not in CANDIDATES:
        raise InvalidArgument(f"unknown runtime {wanted!r}", hint=f"known are {', '.join(CANDIDATES)}")
    return (wanted,) if wanted else CANDIDATES


def _init_path(config: DaemonConfig) -> str:
    """An init program that was named by its path; otherwise the usual places are searched."""
    return config.init_path if "/" in config.init_path else ""


def _engine_facts(config: DaemonConfig, runtime: MonitoredRuntime, host: container_host.HostFacts) -> EngineFacts:
    programs = runtime.programs()
    init = Program(Path(host.init_path).name, host.init_path) if host.init_path else None
    return EngineFacts(
        engine_id=engine_id(config.data_root),
        engine_version=__version__,
        data_root=config.data_root,
        cgroups=host.cgroups,
        drivers=functools.cache(functools.partial(survey, config.data_root)),
        runtimes=[Program(*programs[0])],
        monitor=Program(*programs[1]),
        init=init,
        registry_mirrors=config.registry_mirrors,
        insecure_registries=config.insecure_registries,
        labels=config.labels,
        debug=config.debug,
        warnings=config.warnings,
    )


def warn(warnings: Iterable[str]) -> None:
    """Into the daemon's log."""
    for warning in warnings:
        _log.warning("%s", warning)
