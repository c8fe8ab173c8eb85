"""`run` and `create`: the flags of a container, as the Engine API wants them."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from lamina.cli import exit_codes, health, streaming
from lamina.cli.client import Client
from lamina.cli.commands.transfer import pull_image
from lamina.cli.environment import environment
from lamina.cli.main import complain
from lamina.errors import InvalidArgument, LaminaError, NotFound

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def _many(*names: str, **keywords: Any) -> Callable[..., Any]:
    return click.option(*names, multiple=True, **keywords)


_FLAGS: tuple[Callable[..., Any], ...] = (
    _many("-a", "--attach", help="Attach to stdin, stdout or stderr."),
    _many("--add-host", metavar="NAME:ADDRESS", help="A line for /etc/hosts."),
    _many("--cap-add", metavar="CAP"),
    _many("--cap-drop", metavar="CAP"),
    click.option("--cidfile", metavar="FILE", help="Write the container's id there."),
    click.option("-c", "--cpu-shares", type=int),
    click.option("--cgroupns"),
    click.option("--cpu-period", type=int),
    click.option("--cpu-quota", type=int),
    click.option("--cpuset-cpus"),
    click.option("--cpuset-mems"),
    click.option("--cpus", type=float, help="How many processors it may use."),
    _many("--device", metavar="HOST[:INSIDE[:rwm]]"),
    click.option("--domainname"),
    _many("--dns", metavar="ADDRESS"),
    _many("--dns-option"),
    _many("--dns-search"),
    click.option("--entrypoint", help="Instead of the image's entrypoint."),
    _many("-e", "--env", metavar="NAME=VALUE"),
    _many("--env-file", metavar="FILE"),
    _many("--expose", metavar="PORT"),
    _many("--group-add"),
    *health.FLAGS,
    click.option("-h", "--hostname"),
    click.option("--init", is_flag=True, default=None, help="An init that reaps and forwards signals."),
    click.option("-i", "--interactive", is_flag=True, help="Keep stdin open."),
    click.option("--ipc"),
    _many("-l", "--label", metavar="NAME=VALUE"),
    click.option("--log-driver"),
    _many("--log-opt", metavar="NAME=VALUE"),
    click.option("--mac-address"),
    click.option("-m", "--memory", metavar="BYTES", help="Such as 64m."),
    click.option("--memory-reservation", metavar="BYTES"),
    click.option("--memory-swap", metavar="BYTES"),
    _many("--mount", metavar="type=…,source=…,target=…"),
    click.option("--name"),
    click.option("--net", "--network", "network", metavar="MODE", help="bridge, none, host, container:ID."),
    click.option("--oom-score-adj", type=int),
    click.option("--pid"),
    click.option("--pids-limit", type=int),
    click.option("--platform"),
    click.option("--privileged", is_flag=True),
    _many("-p", "--publish", metavar="PORTS"),
    click.option("-P", "--publish-all", is_flag=True),
    click.option("--pull", type=click.Choice(["always", "missing", "never"]), default="missing", show_default=True),
    click.option("--read-only", is_flag=True),
    click.option("--restart", metavar="POLICY"),
    click.option("--rm", is_flag=True, help="Remove it when it ends."),
    click.option("--runtime"),
    _many("--security-opt"),
    click.option("--shm-size", metavar="BYTES"),
    click.option("--stop-signal"),
    click.option("--stop-timeout", type=int),
    _many("--storage-opt", metavar="NAME=VALUE"),
    _many("--sysctl", metavar="NAME=VALUE"),
    _many("--tmpfs", metavar="DIR[:OPTIONS]"),
    click.option("-t", "--tty", is_flag=True, help="Give it a terminal."),
    _many("--ulimit", metavar="NAME=SOFT[:HARD]"),
    click.option("-u", "--user"),
    click.option("--userns"),
    click.option("--uts"),
    _many("-v", "--volume", metavar="SOURCE:DIR[:ro]"),
    _many("--volumes-from"),
    click.option("-w", "--workdir", metavar="DIR"),
    click.argument("image"),
    click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [ARGUMENT...]"),
)

_SETTINGS = {"ignore_unknown_options": False, "allow_interspersed_args": False, "help_option_names": ["--help"],
             "max_content_width": 100}  # fmt: skip


def _with_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


@click.command("create", context_settings=_SETTINGS)
@_with_flags
@click.pass_obj
def create(client: Client, /, **flags: Any) -> int:
    """Create a container without starting it.

    \b
    lamina create --name web -e COLOR=blue nginx
    """
    try:
        click.echo(make(client, flags))
    except LaminaError as error:
        complain(error)
        return exit_codes.FAILURE
    return 0


@click.command("run", context_settings=_SETTINGS)
@click.option("-d", "--detach", is_flag=True, help="Leave it running; print its id.")
@click.option("--detach-keys", metavar="KEYS", help="Instead of ctrl-p,ctrl-q.")
@click.option("--sig-proxy/--no-sig-proxy", default=True)
@_with_flags
@click.pass_obj
def run(client: Client, /, *, detach: bool, detach_keys: str | None, sig_proxy: bool, **flags: Any) -> int:
    """Create a container and run it.

    \b
    lamina run -it --rm alpine
    lamina run -d --name web -v data:/var/lib/data nginx
    lamina run --rm --net none -m 64m busybox echo hello
    """
    try:
        if flags["rm"] and flags["restart"] not in (None, "no"):
            raise InvalidArgument("conflicting options: cannot specify both --restart and --rm")
        if detach and flags["attach"]:
            raise click.UsageError("conflicting options: cannot specify both --attach and --detach")
        wanted = _attached(flags)
        if not detach:
            streaming.require_terminal(tty=flags["tty"], stdin=wanted[0])
        identity = make(client, flags, detached=detach)
        if detach:
            client.request("POST", f"/containers/{identity}/start").read()
            click.echo(identity)
            return 0
        return streaming.run(
            client, identity, streaming.Attached(*wanted, tty=flags["tty"], detach_keys=detach_keys or ""),
            removes=flags["rm"], proxies=sig_proxy and not flags["tty"],
        )  # fmt: skip
    except LaminaError as error:
        complain(error)
        return exit_codes.of_start(error)


def make(client: Client, flags: dict[str, Any], *, detached: bool = False) -> str:
    """Create the container, pulling its image first if need be; its id."""
    if flags["cidfile"] and os.path.exists(flags["cidfile"]):
        raise InvalidArgument(
            f"container ID file found, make sure the other container isn't running or delete {flags['cidfile']}"
        )
    body = request_body(flags, detached=detached)
    query = {"name": flags["name"], "platform": flags["platform"]}
    if flags["pull"] == "always":
        pull_image(client, flags["image"], platform=flags["platform"], quiet=False, to_stderr=True)
    try:
        answer = client.call("POST", "/containers/create", query=query, body=body)
    except NotFound as error:
        if flags["pull"] == "never" or "No such image" not in str(error):
            raise
        click.echo(f"Unable to find image '{flags['image']}' locally", err=True)
        pull_image(client, flags["image"], platform=flags["platform"], quiet=False, to_stderr=True)
        answer = client.call("POST", "/containers/create", query=query, body=body)
    for warning in answer.get("Warnings") or ():
        click.echo(f"WARNING: {warning}", err=True)
    if flags["cidfile"]:
        with open(flags["cidfile"], "x", encoding="ascii") as file:
            file.write(answer["Id"])
    return str(answer["Id"])


def _attached(flags: dict[str, Any]) -> tuple[bool, bool, bool]:
    """Which streams a foreground run attaches: stdin, stdout, stderr."""
    named = {name.lower() for name in flags["attach"]}
    if named:
        return "stdin" in named, "stdout" in named, "stderr" in named
    return flags["interactive"], True, True


def request_body(flags: dict[str, Any], *, detached: bool) -> dict[str, Any]:
    """The body of `POST /containers/create`.

    Raises:
        InvalidArgument: a flag that makes no sense; the message names it.
    """
    stdin, stdout, stderr = _attached(flags)
    body: dict[str, Any] = {
        "Image": flags["image"],
        "Cmd": list(flags["words"]) or None,
        "Hostname": flags["hostname"] or "",
        "Domainname": flags["domainname"] or "",
        "User": flags["user"] or "",
        "Env": environment(flags["env"], flags["env_file"]),
        "Labels": _pairs(flags["label"]),
        "Tty": flags["tty"],
        "OpenStdin": flags["interactive"],
        "StdinOnce": flags["interactive"] and not detached and stdin,
        "AttachStdin": stdin and not detached,
        "AttachStdout": stdout and not detached,
        "AttachStderr": stderr and not detached,
        "WorkingDir": flags["workdir"] or "",
        "ExposedPorts": {_port(port): {} for port in flags["expose"]},
        "HostConfig": _host_config(flags),
        "NetworkingConfig": {"EndpointsConfig": {}},
    }
    if flags["entrypoint"] is not None:
        body["Entrypoint"] = [flags["entrypoint"]] if flags["entrypoint"] else [""]
    if flags["mac_address"]:
        body["MacAddress"] = flags["mac_address"]
    if flags["stop_signal"]:
        body["StopSignal"] = flags["stop_signal"]
    if flags["stop_timeout"] is not None:
        body["StopTimeout"] = flags["stop_timeout"]
    check = health.health_check(flags)
    if check is not None:
        body["Healthcheck"] = check
    volumes = [volume for volume in flags["volume"] if ":" not in volume]
    if volumes:
        body["Volumes"] = {volume: {} for volume in volumes}
    return body


def _host_config(flags: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Binds": [_bind(volume) for volume in flags["volume"] if ":" in volume],
        "NetworkMode": flags["network"] or "default",
        "AutoRemove": flags["rm"],
        "CapAdd": list(flags["cap_add"]) or None,
        "CapDrop": list(flags["cap_drop"]) or None,
        "Dns": list(flags["dns"]),
        "DnsOptions": list(flags["dns_option"]),
        "DnsSearch": list(flags["dns_search"]),
        "ExtraHosts": list(flags["add_host"]) or None,
        "GroupAdd": list(flags["group_add"]) or None,
        "IpcMode": flags["ipc"] or "",
        "PidMode": flags["pid"] or "",
        "UTSMode": flags["uts"] or "",
        "UsernsMode": flags["userns"] or "",
        "Privileged": flags["privileged"],
        "PublishAllPorts": flags["publish_all"],
        "PortBindings": dict(_publish(port) for port in flags["publish"]),
        "ReadonlyRootfs": flags["read_only"],
        "SecurityOpt": [_security(option) for option in flags["security_opt"]] or None,
        "VolumesFrom": list(flags["volumes_from"]) or None,
        "RestartPolicy": _restart(flags["restart"]),
        "LogConfig": {"Type": flags["log_driver"] or "", "Config": _pairs(flags["log_opt"])},
        "Memory": _bytes("--memory", flags["memory"]),
        "MemoryReservation": _bytes("--memory-reservation", flags["memory_reservation"]),
        "MemorySwap": -1 if flags["memory_swap"] == "-1" else _bytes("--memory-swap", flags["memory_swap"]),
        "NanoCpus": round((flags["cpus"] or 0) * 1_000_000_000),
        "CpuShares": flags["cpu_shares"] or 0,
        "CpuPeriod": flags["cpu_period"] or 0,
        "CpuQuota": flags["cpu_quota"] or 0,
        "CpusetCpus": flags["cpuset_cpus"] or "",
        "CpusetMems": flags["cpuset_mems"] or "",
        "CgroupnsMode": flags["cgroupns"] or "",
        "ShmSize": _bytes("--shm-size", flags["shm_size"]),
        "OomScoreAdj": flags["oom_score_adj"] or 0,
        "Devices": [_device(device) for device in flags["device"]],
        "Ulimits": [_ulimit(limit) for limit in flags["ulimit"]] or None,
    }
    found |= {"Mounts": [_mount(mount) for mount in flags["mount"]]} if flags["mount"] else {}
    found |= {"Tmpfs": dict(entry.partition(":")[::2] for entry in flags["tmpfs"])} if flags["tmpfs"] else {}
    found |= {"Sysctls": _pairs(flags["sysctl"])} if flags["sysctl"] else {}
    found |= {"StorageOpt": _pairs(flags["storage_opt"])} if flags["storage_opt"] else {}
    for key in ("init", "runtime", "pids_limit"):
        if flags[key] is not None:
            found[{"init": "Init", "runtime": "Runtime", "pids_limit": "PidsLimit"}[key]] = flags[key]
    return found


def _pairs(entries: Sequence[str]) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in entries)


def _bytes(flag: str, text: str | None) -> int:
    if not text:
        return 0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.lower())
    if match is None:
        raise InvalidArgument(f'invalid argument "{text}" for {flag}: invalid size')
    return int(float(match[1]) * _UNITS[match[2]])


def _bind(volume: str) -> str:
    source, colon, rest = volume.partition(":")
    if source.startswith((".", "~")):
        source = str(Path(source).expanduser().resolve())
    return source + colon + rest


def _port(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


def _publish(text: str) -> tuple[str, list[dict[str, str]]]:
    outside, _, inside = text.rpartition(":")
    address, _, port = outside.rpartition(":")
    return _port(inside), [{"HostIp": address, "HostPort": port}]


def _security(option: str) -> str:
    kind, _, value = option.partition("=")
    if kind == "seccomp" and value not in ("unconfined", "builtin", "") and not value.lstrip().startswith("{"):
        try:
            return f"seccomp={Path(value).read_text(encoding='utf-8')}"
        except OSError as error:
            raise InvalidArgument(f"opening seccomp profile ({value}) failed: {error.strerror}") from error
    return option


def _restart(policy: str | None) -> dict[str, Any]:
    name, colon, count = (policy or "no").partition(":")
    if colon and not count.isdecimal():
        raise InvalidArgument("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def _device(text: str) -> dict[str, str]:
    parts = text.split(":")
    inside = parts[1] if len(parts) > 1 and parts[1].startswith("/") else parts[0]
    access = parts[-1] if len(parts) > 1 and not parts[-1].startswith("/") else "rwm"
    return {"PathOnHost": parts[0], "PathInContainer": inside, "CgroupPermissions": access}


def _ulimit(text: str) -> dict[str, Any]:
    name, equals, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    if not equals or not re.fullmatch(r"-?\d+", soft) or (hard and not re.fullmatch(r"-?\d+", hard)):
        raise InvalidArgument(f"invalid ulimit argument: {text}", hint="such as --ulimit nofile=1024:2048")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


_MOUNT_KEYS = {"source": "Source", "src": "Source", "target": "Target", "dst": "Target", "destination": "Target"}


def _mount(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {"Type": "volume"}
    for field in next(csv.reader([text])):
        key, _, value = field.partition("=")
        if key == "type":
            found["Type"] = value
        elif key in _MOUNT_KEYS:
            found[_MOUNT_KEYS[key]] = value
        elif key in ("readonly", "ro"):
            found["ReadOnly"] = value.lower() not in ("false", "0")
        elif key == "bind-propagation":
            found["BindOptions"] = {"Propagation": value}
        elif key == "tmpfs-size":
            found.setdefault("TmpfsOptions", {})["SizeBytes"] = _bytes("--mount", value)
        elif key == "tmpfs-mode":
            found.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
        elif key == "volume-nocopy":
            found["VolumeOptions"] = {"NoCopy": value.lower() not in ("false", "0")}
        else:
            raise InvalidArgument(f"unexpected key '{key}' in '{field}'")
    return found


COMMANDS = {"run": run, "create": create}
