"""What the daemon was asked to be: flags, daemon.json, environment. The only reader of these on the daemon's side.

Names and rules are dockerd's: an option may stand in the file or on the command line, not in both; an unknown key is
refused by name. Source: moby cmd/dockerd, daemon/config.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from lamina.errors import InvalidArgument

DEFAULT_CONFIG_FILE = Path("/etc/lamina/daemon.json")
DEFAULT_HOST = "unix:///run/lamina.sock"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")

_INSECURE_ALWAYS = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Everything the daemon needs to know before it builds its objects."""

    data_root: Path = Path("/var/lib/lamina")
    exec_root: Path = Path("/run/lamina")
    pidfile: Path = Path("/run/lamina.pid")
    hosts: tuple[str, ...] = (DEFAULT_HOST,)
    group: str = "docker"
    storage_driver: str = ""
    storage_opts: Mapping[str, str] = field(default_factory=dict)
    bridge: str = ""
    bip: str = ""
    insecure_registries: tuple[str, ...] = _INSECURE_ALWAYS
    registry_mirrors: tuple[str, ...] = ()
    certs_dir: Path = Path("/etc/docker/certs.d")
    log_level: str = "info"
    default_runtime: str = ""
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    dns: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    debug: bool = False
    tls: bool = False
    tlsverify: bool = False
    tlscacert: Path = Path("/etc/docker/ca.pem")
    tlscert: Path = Path("/etc/docker/cert.pem")
    tlskey: Path = Path("/etc/docker/key.pem")
    allow_plain_tcp: bool = False
    iptables: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    init_path: str = "docker-init"
    listen_pid: int | None = None
    listen_fds: int = 0
    notify_socket: str = ""
    warnings: tuple[str, ...] = ()


_FILE_KEYS = {
    "data-root": "data_root",
    "exec-root": "exec_root",
    "pidfile": "pidfile",
    "hosts": "hosts",
    "group": "group",
    "storage-driver": "storage_driver",
    "storage-opts": "storage_opts",
    "bridge": "bridge",
    "bip": "bip",
    "insecure-registries": "insecure_registries",
    "registry-mirrors": "registry_mirrors",
    "log-level": "log_level",
    "default-runtime": "default_runtime",
    "max-concurrent-downloads": "max_concurrent_downloads",
    "max-concurrent-uploads": "max_concurrent_uploads",
    "max-download-attempts": "max_download_attempts",
    "dns": "dns",
    "dns-opts": "dns_opts",
    "dns-search": "dns_search",
    "labels": "labels",
    "debug": "debug",
    "tls": "tls",
    "tlsverify": "tlsverify",
    "tlscacert": "tlscacert",
    "tlscert": "tlscert",
    "tlskey": "tlskey",
    "iptables": "iptables",
    "ip-forward": "ip_forward",
    "ip-masq": "ip_masq",
    "init-path": "init_path",
}
"""Keys of daemon.json that take effect, and the field each one sets."""

_NO_EFFECT_KEYS = frozenset(
    {
        "live-restore", "features", "experimental", "userland-proxy", "userland-proxy-path", "containerd",
        "containerd-namespace", "containerd-plugins-namespace", "raw-logs", "shutdown-timeout",
        "swarm-default-advertise-addr", "network-control-plane-mtu", "node-generic-resources", "metrics-addr",
        "default-shm-size", "default-address-pools",
        "fixed-cidr", "mtu", "proxies", "max-concurrent-uploads", "oom-score-adjust", "init", "builder", "runtimes",
        "exec-opts", "log-driver", "log-opts", "default-ulimits", "default-cgroupns-mode", "default-ipc-mode",
        "ip", "ip6tables", "ipv6", "fixed-cidr-v6", "api-cors-header", "cluster-store", "graph",
        "registry-config", "default-network-opts", "host-gateway-ip", "host-gateway-ips", "min-api-version",
        "cdi-spec-dirs", "bridge-accept-fwmark", "http-proxy", "https-proxy", "no-proxy",
    }
) - frozenset(_FILE_KEYS)  # fmt: skip
"""dockerd's keys that Lamina reads over with a warning: leaving them out makes nothing less safe."""

_REFUSED_KEYS = {
    "userns-remap": "containers would run without the user namespace that this asks for",
    "no-new-privileges": "containers would run without it; ask for it per container with --security-opt",
    "selinux-enabled": "containers would run unconfined",
    "authorization-plugins": "requests would go unchecked",
    "cgroup-parent": "limits of the parent group would not apply",
    "seccomp-profile": "containers would run under the default profile instead",
    "icc": "containers could reach each other",
    "block-registry": "registries would not be blocked",
    "allow-direct-routing": "it changes what other hosts can reach",
}
"""dockerd's keys whose silent absence would make a host less safe: refused until they are served."""


def from_sources(
    flags: Mapping[str, object],
    config_file: Path | None,
    *,
    default_file: Path = DEFAULT_CONFIG_FILE,
    environment: Mapping[str, str] = os.environ,
) -> DaemonConfig:
    """Merge the flags given on the command line with the file and what systemd passed.

    Args:
        flags: field name to value, only what was really given.
        config_file: the file the user named (must exist), or None for the default one (may be missing).
        default_file: where to look when no file was named.
        environment: LISTEN_PID, LISTEN_FDS, NOTIFY_SOCKET (sd_listen_fds(3), sd_notify(3)).

    Raises:
        InvalidArgument: unknown or doubled option, wrong type, impossible value; the message names it.
    """
    path = config_file or default_file
    in_file = _read_file(path, must_exist=config_file is not None)
    both = sorted(key for key, name in _FILE_KEYS.items() if key in in_file and name in flags)
    if both:
        raise InvalidArgument(
            f"options given both as a flag and in {path}: {', '.join(both)}", hint="remove one of the two"
        )
    values: dict[str, object] = {}
    warnings: list[str] = []
    for key, value in in_file.items():
        if key in _FILE_KEYS:
            values[_FILE_KEYS[key]] = _typed(path, key, value)
        elif key in _REFUSED_KEYS:
            raise InvalidArgument(f"{path}: {key} is not served by Lamina yet, and {_REFUSED_KEYS[key]}")
        elif key in _NO_EFFECT_KEYS:
            warnings.append(f"{path}: {key} has no effect in this version")
        else:
            raise InvalidArgument(f"{path}: unknown key {key!r}", hint="keys are those of dockerd's daemon.json")
    values.update(flags)
    if environment.get("LISTEN_PID", "").isdecimal():
        values["listen_pid"] = int(environment["LISTEN_PID"])
    if environment.get("LISTEN_FDS", "").isdecimal():
        values["listen_fds"] = int(environment["LISTEN_FDS"])
    values["notify_socket"] = environment.get("NOTIFY_SOCKET", "")
    config = replace(DaemonConfig(warnings=tuple(warnings)), **values)  # type: ignore[arg-type]  # checked by _typed
    return _checked(config)


def _read_file(path: Path, *, must_exist: bool) -> dict[str, object]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if must_exist:
            raise InvalidArgument(f"configuration file {path} does not exist") from None
        return {}
    try:
        found = json.loads(content) if content.strip() else {}
    except ValueError as error:
        raise InvalidArgument(f"configuration file {path} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidArgument(f"configuration file {path} does not hold a JSON object")
    return found


def _typed(path: Path, key: str, value: object) -> object:
    default = {f.name: f for f in fields(DaemonConfig)}[_FILE_KEYS[key]]
    kind = str(default.type)
    if kind == "Path" and isinstance(value, str):
        return Path(value)
    if kind.startswith(("tuple", "Mapping")) and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return parse_storage_opts(value) if kind.startswith("Mapping") else tuple(value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "str" and isinstance(value, str):
        return value
    raise InvalidArgument(f"{path}: {key} has the wrong type ({type(value).__name__})")


def parse_storage_opts(options: Sequence[str]) -> dict[str, str]:
    """`["overlay2.size=1G"]` as a mapping.

    Raises:
        InvalidArgument: an option without `=`.
    """
    found: dict[str, str] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise InvalidArgument(f"storage option {option!r} is not of the form key=value")
        found[key.strip().lower()] = value.strip()
    return found


def _checked(config: DaemonConfig) -> DaemonConfig:
    if config.log_level not in LOG_LEVELS:
        raise InvalidArgument(f"log level {config.log_level!r} is none of {', '.join(LOG_LEVELS)}")
    if config.bip:
        try:
            interface = ipaddress.ip_interface(config.bip)
        except ValueError as error:
            raise InvalidArgument(f"--bip {config.bip!r} is no address with prefix length: {error}") from error
        if interface.network.prefixlen > 30:
            raise InvalidArgument(f"--bip {config.bip} leaves no room for containers")
        if config.bridge:
            raise InvalidArgument("--bip and --bridge exclude each other", hint="the address of a bridge is its own")
    for name in ("max_concurrent_downloads", "max_concurrent_uploads", "max_download_attempts"):
        if getattr(config, name) < 1:
            raise InvalidArgument(f"{name.replace('_', '-')} must be at least 1")
    if not config.hosts:
        raise InvalidArgument("no host to listen on")
    for host in config.hosts:
        check_host(host, config)
    registries = dict.fromkeys([*_INSECURE_ALWAYS, *config.insecure_registries])
    # Programs that we start have other working directories: `--exec-root run` must mean the same to them.
    return replace(
        config,
        insecure_registries=tuple(registries),
        data_root=config.data_root.absolute(),
        exec_root=config.exec_root.absolute(),
        pidfile=config.pidfile.absolute(),
    )


def check_host(host: str, config: DaemonConfig) -> None:
    """Refuse what must not be listened on.

    Raises:
        InvalidArgument: unknown scheme, no port, or TCP that anyone could use: everybody who reaches the API is root.
    """
    scheme, separator, rest = host.partition("://")
    if not separator or scheme not in {"unix", "tcp", "fd"}:
        raise InvalidArgument(f"host {host!r} is none of unix:///path, tcp://address:port, fd://")
    if scheme == "unix" and not rest.startswith("/"):
        raise InvalidArgument(f"host {host!r} needs an absolute path")
    if scheme != "tcp":
        return
    address, port = split_tcp(host)
    if config.tlsverify:
        return
    is_loopback = address == "localhost" or (_is_ip(address) and ipaddress.ip_address(address).is_loopback)
    if is_loopback and config.allow_plain_tcp:
        return
    if is_loopback:
        raise InvalidArgument(
            f"refusing to listen on {host} without TLS: every local user would be root",
            hint="use --tlsverify, or say --allow-plain-tcp for loopback",
        )
    raise InvalidArgument(
        f"refusing to listen on {host} without mutual TLS: whoever reaches port {port} would be root",
        hint="use --tlsverify --tlscacert --tlscert --tlskey",
    )


def split_tcp(host: str) -> tuple[str, int]:
    """Address and port of `tcp://address:port`.

    Raises:
        InvalidArgument: no port, or no number between 0 and 65535.
    """
    address, _, port = host.removeprefix("tcp://").rpartition(":")
    address = address.strip("[]")
    if not address or not port.isdecimal() or int(port) > 65535:
        raise InvalidArgument(f"host {host!r} is not of the form tcp://address:port")
    return address, int(port)


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
