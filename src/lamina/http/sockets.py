"""Binds the sockets that a server listens on (a blocking module: bind, chmod, chown)."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import ipaddress
import os
import socket
import ssl
import stat
from collections.abc import Sequence
from pathlib import Path

from lamina.errors import Conflict, InvalidArgument, NotFound, PermissionDenied, Unavailable

SYSTEMD_FIRST_FD = 3  # sd_listen_fds(3)


def bind_unix(path: Path, group: str | None = None) -> socket.socket:
    """Bind a unix socket, mode 0660, owned by `group` when the group exists (a number is a group id).

    A socket left by a daemon that is gone is replaced.

    Raises:
        Conflict: somebody listens there, or the path is no socket.
        NotFound: no such group.
        InvalidArgument: the path is too long for a unix socket.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    gid = group_id(group) if group else None
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)  # nobody else gets in before the group is set
    try:
        sock.bind(os.fspath(path))
    except OSError as error:
        sock.close()
        if "too long" in str(error):
            raise InvalidArgument(f"socket path {path} is too long: at most 107 bytes") from error
        raise Unavailable(f"cannot listen on unix://{path}: {error.strerror}") from error
    finally:
        os.umask(before)
    if gid is not None:
        with contextlib.suppress(PermissionError):  # a daemon that is not root keeps its own group
            os.chown(path, -1, gid)
    os.chmod(path, 0o660)
    sock.settimeout(0)
    return sock


def remove_unix(path: Path) -> None:
    """Remove the socket file. An absent one is fine."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


def group_id(group: str) -> int:
    """The id of a group by name or number.

    Raises:
        NotFound: the name is unknown.
    """
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise NotFound(f"group {group} not found", hint=f"groupadd --system {group}") from None


def bind_tcp(host: str, port: int, *, tls: ssl.SSLContext | None = None) -> socket.socket:
    """Bind a TCP socket; without TLS only on a loopback address.

    Raises:
        PermissionDenied: a plain socket that others could reach: it would make them root on this host.
        Unavailable: the address is taken or not ours.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise Unavailable(f"cannot listen on tcp://{host}:{port}: {error.strerror}") from error
    if tls is None and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise PermissionDenied(
            f"refusing to listen on tcp://{host}:{port} without TLS: whoever reaches it is root on this host",
            hint="use --tlsverify with --tlscacert, --tlscert and --tlskey, or listen on 127.0.0.1",
        )
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise Unavailable(f"cannot listen on tcp://{host}:{port}: {error.strerror}") from error
    sock.settimeout(0)
    return sock


def mutual_tls(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """A server context that admits only clients with a certificate of this authority.

    Raises:
        InvalidArgument: a file is missing or unusable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cafile=os.fspath(ca))
        context.load_cert_chain(os.fspath(certificate), os.fspath(key))
    except OSError as error:  # ssl.SSLError is one
        raise InvalidArgument(f"cannot use TLS files {ca}, {certificate}, {key}: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def inherited(
    address: str, *, listen_pid: int | None, listen_fds: int, names: Sequence[str] = ()
) -> list[socket.socket]:
    """The sockets that systemd passed, for a host of `fd://`, `fd://*`, `fd://4` or `fd://name`.

    `listen_pid`, `listen_fds` and `names` are LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES.
    Source: sd_listen_fds(3).

    Raises:
        InvalidArgument: no socket was passed, or not this one.
    """
    if listen_pid != os.getpid() or listen_fds <= 0:
        raise InvalidArgument("no sockets found via socket activation: make sure the service was started by systemd")
    numbers = list(range(SYSTEMD_FIRST_FD, SYSTEMD_FIRST_FD + listen_fds))
    if address not in {"", "*"}:
        if address.isdecimal() and int(address) in numbers:
            numbers = [int(address)]
        elif address in names:
            numbers = [fd for fd, name in zip(numbers, names, strict=False) if name == address]
        else:
            raise InvalidArgument(f"no socket fd://{address} was passed: there are {listen_fds}, from 3 on")
    found = []
    for fd in numbers:
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)  # not for the programs that we start
        sock = socket.socket(fileno=fd)
        sock.settimeout(0)
        found.append(sock)
    return found


def _clear_stale(path: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"cannot listen on unix://{path}: the path exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except OSError as error:
            raise Conflict(f"cannot listen on unix://{path}: {error.strerror}") from error
    raise Conflict(f"cannot listen on unix://{path}: another daemon listens there")
