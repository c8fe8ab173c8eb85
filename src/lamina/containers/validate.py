"""What a container may not ask for, and what it is warned of (pure).

Rules for editors: texts are Docker's where Docker has one, because people search for them. A thing that this engine
does not do yet is `NotServed` and named: never accepted and ignored.

Source: moby daemon/container.go (verifyContainerSettings), daemon/daemon_unix.go (verifyPlatformContainerSettings,
verifyPlatformContainerResources), runconfig/hostconfig_unix.go.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from lamina.containers import resources
from lamina.containers.devices import parse_access, parse_rule
from lamina.containers.log_options import check_log_options
from lamina.containers.security import SecurityOptions
from lamina.containers.signals import parse_signal
from lamina.containers.spec import wanted_devices
from lamina.errors import InvalidArgument, NotServed
from lamina.jsonvalue import JsonObject, JsonValue, boolean, integer, mapping, objects, strings, text

MIN_MEMORY_BYTES = 6 << 20
_LOG_DRIVERS_OF_DOCKER = frozenset(
    {"local", "syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "gcplogs", "json-file", "none"}
)
_LOG_OPTIONS = frozenset(
    {"max-size", "max-file", "max-buffer-size", "mode", "compress", "cache-disabled", "cache-max-file",
     "cache-max-size", "cache-compress", "labels", "labels-regex", "env", "env-regex", "tag"}
)  # fmt: skip
_CPUSET = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_PORT = re.compile(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the host can limit, and has."""

    controllers: Collection[str] = ("cpu", "cpuset", "memory", "blkio", "pids")
    limits_swap: bool = True
    cpus: int = 1
    runtimes: Collection[str] = ("runc",)
    hard_limits: Mapping[str, int] = field(default_factory=dict)
    raises_limits: bool = True
    log_drivers: Collection[str] = ("json-file", "none")


def validate(config: JsonObject, host: JsonObject, limits: Limits) -> list[str]:
    """Check complete settings; take out of `host` what this host cannot limit. Returns warnings.

    Raises:
        InvalidArgument: they make no sense, with Docker's words.
        NotServed: they ask for something that comes later, named.
    """
    _check_config(config)
    _check_network(config, host)
    _check_modes(host)
    check_restart_policy(host)
    SecurityOptions.parse(strings(host, "SecurityOpt"))
    for _, _, access in wanted_devices(host):
        parse_access(access)
    for rule in strings(host, "DeviceCgroupRules"):
        parse_rule(rule)
    resources.rlimits(host, limits.hard_limits, raises=limits.raises_limits)
    if text(host, "Runtime") not in limits.runtimes:
        raise InvalidArgument(
            f"unknown or invalid runtime name: {text(host, 'Runtime')[:80]}",
            hint="known here: " + ", ".join(sorted(limits.runtimes)),
        )
    _check_logging(config, mapping(host, "LogConfig"), limits)
    return validate_limits(host, limits) + _without_effect(host)


def validate_limits(host: JsonObject, limits: Limits) -> list[str]:
    """Check settings whose limits were changed; take out of `host` what this host cannot limit. Returns warnings.

    Raises:
        InvalidArgument: they make no sense, with Docker's words.
    """
    warnings = _discard_what_cannot_be_limited(host, limits)
    _check_memory(host)
    _check_cpu(host, limits.cpus)
    _check_others(host)
    return warnings


def _check_logging(config: JsonObject, wanted: JsonObject, limits: Limits) -> None:
    driver = text(wanted, "Type")
    if driver in limits.log_drivers:
        unknown = sorted(set(mapping(wanted, "Config")) - _LOG_OPTIONS)
        if unknown and driver != "none":
            raise InvalidArgument(f"unknown log opt '{unknown[0][:80]}' for {driver} log driver")
        if driver != "none":
            check_log_options(config, wanted)
        return
    if driver not in _LOG_DRIVERS_OF_DOCKER:
        raise InvalidArgument(f"logger: no log driver named '{driver[:80]}' is registered")
    raise NotServed(f"the log driver {driver} is not served yet", hint="use --log-driver json-file or none")


def _without_effect(host: JsonObject) -> list[str]:
    warnings: list[str] = []
    if publishes(host) and text(host, "NetworkMode") == "host":
        warnings.append("Published ports are discarded when using host network mode")
    return warnings


def _check_config(config: JsonObject) -> None:
    if not strings(config, "Entrypoint") and not strings(config, "Cmd"):
        raise InvalidArgument("No command specified", hint="name a command after the image, or use an image with one")
    directory = text(config, "WorkingDir")
    if directory and not directory.startswith("/"):
        raise InvalidArgument(f"the working directory '{directory[:300]}' is invalid, it needs to be an absolute path")
    for entry in strings(config, "Env"):
        if not entry or entry.startswith("=") or "\0" in entry:
            raise InvalidArgument(f"invalid environment variable: {entry[:80]}")
    for word in (*strings(config, "Entrypoint"), *strings(config, "Cmd"), text(config, "User"), directory):
        if "\0" in word:
            raise InvalidArgument("a command, user or directory contains a zero byte")
    _check_image_settings(config)


def _check_image_settings(config: JsonObject) -> None:
    if text(config, "StopSignal"):
        parse_signal(text(config, "StopSignal"))
    for port in mapping(config, "ExposedPorts"):
        if not _PORT.fullmatch(port):
            raise InvalidArgument(f"invalid port specification: {port[:80]}")
    health = mapping(config, "Healthcheck")
    for key in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        if 0 < integer(health, key) < 1_000_000 or integer(health, key) < 0:
            raise InvalidArgument(f"{key} in Healthcheck cannot be less than 1ms")
    if integer(health, "Retries") < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def _check_network(config: JsonObject, host: JsonObject) -> None:
    mode = text(host, "NetworkMode")
    if publishes(host):
        if mode.startswith("container:"):
            raise InvalidArgument("conflicting options: port publishing and the container type network mode")
        if mode not in {"host", "none"}:
            raise NotServed(
                "publishing ports (-p, -P) is not served yet",
                hint="reach the container by its own address, or use --network host",
            )
    if strings(host, "Links"):
        raise NotServed("links between containers (--link) are not served", hint="use --network container:NAME")
    for entry in strings(host, "ExtraHosts"):
        name, separator, address = entry.partition(":")
        if not separator or not name or not address:
            raise InvalidArgument(f'invalid add-host option: "{entry[:80]}"')
    if mode.startswith("container:"):
        _check_shared_network(config, host, mode)


def publishes(host: JsonObject) -> bool:
    """Whether ports of the container are to be reached through the host."""
    return boolean(host, "PublishAllPorts") or any(mapping(host, "PortBindings").values())


def _check_shared_network(config: JsonObject, host: JsonObject, mode: str) -> None:
    if not mode.removeprefix("container:"):
        raise InvalidArgument("Invalid network mode: invalid container format container:<name|id>")
    conflicts: tuple[tuple[JsonValue | list[str], str], ...] = (
        (text(config, "Hostname"), "hostname and the network mode"),
        (strings(host, "Dns"), "dns and the network mode"),
        (strings(host, "ExtraHosts"), "custom host-to-IP mapping and the network mode"),
        (text(config, "MacAddress"), "mac-address and the network mode"),
    )
    for value, words in conflicts:
        if value:
            raise InvalidArgument(f"conflicting options: {words}")


def _check_modes(host: JsonObject) -> None:
    allowed = {
        "PidMode": {"", "host", "private"},
        "IpcMode": {"", "host", "private", "shareable", "none"},
        "UTSMode": {"", "host", "private"},
        "CgroupnsMode": {"", "host", "private"},
        "UsernsMode": {"", "host"},
        "Isolation": {"", "default"},
    }
    for key, words in allowed.items():
        value = text(host, key)
        joins = key in {"PidMode", "IpcMode"} and value.startswith("container:") and value != "container:"
        if value not in words and not joins:
            raise InvalidArgument(f"invalid {key.removesuffix('Mode')} mode: {value[:80]}")
    if objects(host, "DeviceRequests"):
        raise NotServed("device requests (--gpus) are not served yet", hint="use --device with the nodes' paths")
    if integer(host, "ShmSize") < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    score = integer(host, "OomScoreAdj")
    if not -1000 <= score <= 1000:
        raise InvalidArgument(f"Invalid value {score}, range for oom score adj is [-1000, 1000]")


def check_restart_policy(host: JsonObject) -> None:
    policy = mapping(host, "RestartPolicy")
    name, most = text(policy, "Name"), integer(policy, "MaximumRetryCount")
    if name not in {"", "no", "always", "on-failure", "unless-stopped"}:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{name[:80]}'; use one of 'no', 'always', 'on-failure', or "
            "'unless-stopped'"
        )
    if name not in {"", "no"} and boolean(host, "AutoRemove"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    if most and name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if most < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")


def _discard_what_cannot_be_limited(host: JsonObject, limits: Limits) -> list[str]:
    """Source: moby verifyPlatformContainerResources: a limit the kernel cannot set is dropped with a warning."""
    warnings: list[str] = []

    def without(controller: str, words: str, zero: JsonValue, *keys: str) -> None:
        if controller in limits.controllers or not any(host.get(key) for key in keys):
            return
        warnings.append(f"Your kernel does not support {words} or the cgroup is not mounted. Limitation discarded.")
        host.update(dict.fromkeys(keys, zero))

    without("memory", "memory limit capabilities", 0, "Memory", "MemorySwap", "MemoryReservation")
    without("cpu", "CPU shares and quota", 0, "CpuShares", "CpuQuota", "CpuPeriod", "NanoCpus")
    without("cpuset", "cpuset", "", "CpusetCpus", "CpusetMems")
    without("blkio", "Block I/O weight", 0, "BlkioWeight")
    if integer(host, "PidsLimit") > 0:
        without("pids", "PIDs limit", None, "PidsLimit")
    if integer(host, "Memory") > 0 and integer(host, "MemorySwap") > 0 and not limits.limits_swap:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without "
            "swap."
        )
        host["MemorySwap"] = -1
    if boolean(host, "OomKillDisable") and integer(host, "Memory") == 0:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
            "running out of resources."
        )
    return warnings


def _check_memory(host: JsonObject) -> None:
    memory, swap = integer(host, "Memory"), integer(host, "MemorySwap")
    reservation, swappiness = integer(host, "MemoryReservation"), integer(host, "MemorySwappiness", -1)
    if memory and memory < MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if swap < -1:
        raise InvalidArgument(f"Invalid value: {swap}, memory swap is a number of bytes, or -1 for no limit")
    if memory > 0 and 0 < swap < memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if not -1 <= swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if reservation and reservation < MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if memory > 0 and reservation > memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")


def _check_cpu(host: JsonObject, cpus: int) -> None:
    nano, period, quota = integer(host, "NanoCpus"), integer(host, "CpuPeriod"), integer(host, "CpuQuota")
    for value, words in ((period, "CPU Period"), (quota, "CPU Quota")):
        if nano > 0 and value > 0:
            raise InvalidArgument(f"Conflicting options: Nano CPUs and {words} cannot both be set.")
    if nano < 0 or nano > cpus * 1_000_000_000:
        raise InvalidArgument(f"Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")
    if integer(host, "CpuShares") < 0:
        raise InvalidArgument("invalid CPU shares: must be a positive number")
    if period and not 1000 <= period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for key, words in (("CpusetCpus", "cpuset cpus"), ("CpusetMems", "cpuset mems")):
        wanted = text(host, key)
        if wanted and not _CPUSET.fullmatch(wanted):
            raise InvalidArgument(f"Invalid value {wanted[:80]} for {words}")
    highest = max((int(number) for number in re.findall(r"\d+", text(host, "CpusetCpus"))), default=0)
    if highest >= cpus and text(host, "CpusetCpus"):
        available = f"0-{cpus - 1}" if cpus > 1 else "0"
        raise InvalidArgument(
            f"Requested CPUs are not available - requested {text(host, 'CpusetCpus')}, available: {available}"
        )


def _check_others(host: JsonObject) -> None:
    weight = integer(host, "BlkioWeight")
    if weight and not 10 <= weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    for name in ("Memory", "MemoryReservation", "NanoCpus", "CpuPeriod"):
        if integer(host, name) < 0:
            raise InvalidArgument(f"invalid {name}: must not be negative")
    for name in ("CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth"):
        if integer(host, name):
            raise InvalidArgument(f"invalid option: {name} is for Windows containers only")
    for name in ("CpuRealtimePeriod", "CpuRealtimeRuntime"):
        if integer(host, name):
            raise InvalidArgument("Your kernel does not support CPU real-time scheduler")
