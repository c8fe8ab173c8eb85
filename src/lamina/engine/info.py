"""Tell about the engine: `info` and `version` (async)."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import dataclass

from lamina.clock import Clock, rfc3339
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.engine.host import EngineFacts, HostView, Program, look
from lamina.events import Events
from lamina.images.store import ImageStore
from lamina.jsonvalue import JsonObject, JsonValue, from_strings
from lamina.storage.driver import StorageDriver, Warns
from lamina.wire.engine.versions import NEWEST, OLDEST
from lamina.workers import Workers

INDEX_SERVER = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Info:
    """Docker's `SystemInfo`: counts, storage, host, limits, registries, and which storage drivers could be used."""

    facts: EngineFacts
    driver: StorageDriver
    containers: ContainerStore
    images: ImageStore
    events: Events
    clock: Clock
    workers: Workers

    async def __call__(self) -> JsonObject:
        """The newest API's shape."""
        host = await self.workers.call(look)
        return {
            "ID": self.facts.engine_id,
            **self._counts(),
            "Driver": self.driver.name,
            "DriverStatus": await self.workers.call(self._driver_rows),
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": [],
                "Log": ["json-file"],
            },
            **self._limits(),
            "IPv4Forwarding": host.forwards_ipv4,
            "BridgeNfIptables": host.filters_bridged_ipv4,
            "BridgeNfIp6tables": host.filters_bridged_ipv6,
            "Debug": self.facts.debug,
            "NFd": host.open_files,
            "NGoroutines": 0,
            "SystemTime": rfc3339(self.clock.now_ns()),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": str(self.facts.cgroups.version),
            "NEventsListener": self.events.listeners,
            **_host_rows(host),
            "IndexServerAddress": INDEX_SERVER,
            "RegistryConfig": self._registries(),
            "GenericResources": [],
            "DockerRootDir": str(self.facts.data_root),
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Name": host.name,
            "Labels": from_strings(list(self.facts.labels)),
            "ExperimentalBuild": False,
            "ServerVersion": self.facts.engine_version,
            **self._programs(),
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "SecurityOptions": ["name=seccomp,profile=builtin"] if host.has_seccomp else [],
            "FirewallBackend": {"Driver": self.facts.firewall},
            "CDISpecDirs": [],
            "DiscoveredDevices": [],
            "Warnings": from_strings(self._warnings()),
        }

    def _counts(self) -> JsonObject:
        states = Counter(container.state.status for container in self.containers.all())
        running = states[Status.RUNNING] + states[Status.RESTARTING]
        paused = states[Status.PAUSED]
        return {
            "Containers": states.total(),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": states.total() - running - paused,
            "Images": len(self.images.ids()),
        }

    def _driver_rows(self) -> list[JsonValue]:
        rows: list[JsonValue] = [[label, value] for label, value in self.driver.status()]
        for report in self.facts.drivers():
            if report.name == self.driver.name:
                continue
            remedy = f" ({report.remedy})" if report.remedy else ""
            verdict = "usable" if report.usable else "not usable"
            rows.append([f"Driver {report.name}", f"{verdict}: {report.reason}{remedy}"])
        return rows

    def _limits(self) -> JsonObject:
        cgroups = self.facts.cgroups
        return {
            "MemoryLimit": cgroups.can("memory"),
            "SwapLimit": cgroups.limits_swap,
            "CpuCfsPeriod": cgroups.can("cpu"),
            "CpuCfsQuota": cgroups.can("cpu"),
            "CPUShares": cgroups.can("cpu"),
            "CPUSet": cgroups.can("cpuset"),
            "PidsLimit": cgroups.can("pids"),
            "OomKillDisable": cgroups.version == 1 and cgroups.can("memory"),
        }

    def _warnings(self) -> list[str]:
        limits = self._limits()
        names = {
            "MemoryLimit": "memory limit",
            "SwapLimit": "swap limit",
            "CpuCfsPeriod": "cpu cfs quota",
            "CPUShares": "cpu shares",
            "CPUSet": "cpuset",
            "PidsLimit": "pids limit",
        }
        missing = [f"WARNING: No {words} support" for key, words in names.items() if not limits[key]]
        told = self.driver.warnings if isinstance(self.driver, Warns) else ()
        return [*self.facts.warnings, *missing, *(f"WARNING: {warning}" for warning in told)]

    def _registries(self) -> JsonObject:
        insecure = self.facts.insecure_registries
        networks = [name for name in insecure if "/" in name]
        mirrors = from_strings(list(self.facts.registry_mirrors))
        indexes: JsonObject = {
            "docker.io": {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True},
        }
        for name in insecure:
            if "/" not in name:
                indexes[name] = {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
        return {"InsecureRegistryCIDRs": from_strings(networks), "IndexConfigs": indexes, "Mirrors": mirrors}

    def _programs(self) -> JsonObject:
        runtimes: JsonObject = {program.name: {"path": program.path} for program in self.facts.runtimes}
        default = self.facts.runtimes[0] if self.facts.runtimes else Program("", "")
        init = self.facts.init or Program("", "")
        return {
            "Runtimes": runtimes,
            "DefaultRuntime": default.name,
            "InitBinary": init.path,
            "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": _number(default)},
            "InitCommit": {"ID": _number(init)},
        }


@dataclass(frozen=True, slots=True)
class EngineVersion:
    """Docker's `SystemVersion`: versions of the engine and of the programs it works through."""

    facts: EngineFacts
    workers: Workers

    async def __call__(self) -> JsonObject:
        """The newest API's shape."""
        host = await self.workers.call(look)
        python = f"python{platform.python_version()}"
        details: JsonObject = {
            "ApiVersion": str(NEWEST),
            "Arch": host.architecture,
            "BuildTime": "",
            "Experimental": "false",
            "GitCommit": "",
            "GoVersion": python,
            "KernelVersion": host.kernel_version,
            "MinAPIVersion": str(OLDEST),
            "Os": "linux",
        }
        engine: JsonObject = {"Name": "Engine", "Version": self.facts.engine_version, "Details": details}
        components: list[JsonValue] = [engine]
        components += [
            {"Name": program.name, "Version": _number(program), "Details": {"Path": program.path}}
            for program in (*self.facts.runtimes, self.facts.monitor, self.facts.init)
            if program is not None
        ]
        return {
            "Platform": {"Name": "Lamina"},
            "Components": components,
            "Version": self.facts.engine_version,
            "ApiVersion": str(NEWEST),
            "MinAPIVersion": str(OLDEST),
            "GitCommit": "",
            "GoVersion": python,
            "Os": "linux",
            "Arch": host.architecture,
            "KernelVersion": host.kernel_version,
            "BuildTime": "",
        }


def _host_rows(host: HostView) -> JsonObject:
    return {
        "KernelVersion": host.kernel_version,
        "OperatingSystem": host.operating_system,
        "OSVersion": host.os_version,
        "OSType": "linux",
        "Architecture": host.machine,
        "NCPU": host.cpus,
        "MemTotal": host.memory_bytes,
    }


def _number(program: Program) -> str:
    """`runc version 1.1.5+ds1` is 1.1.5+ds1."""
    words = program.version.split()
    return next((word.rstrip(",") for word in words if word[:1].isdigit()), program.version)
