"""Foreground containers and execs: attach, wait, start, move bytes, and the exit code (blocking)."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import click

from lamina.cli.client import Client
from lamina.cli.terminal import Streams, proxied_signals, raw_mode, resizing
from lamina.errors import LaminaError, NotFound

_DETACHED_S = 0.5
"""A terminal's stream that ends this long before its container was let go of."""
_MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


@dataclass(frozen=True, slots=True)
class Attached:
    """Which streams, and whether it is a terminal."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool = False
    detach_keys: str = ""


class _Wait:
    """The answer of `wait`, asked for before the container starts."""

    def __init__(self, client: Client, identity: str, condition: str) -> None:
        self._response = client.request("POST", f"/containers/{identity}/wait", query={"condition": condition})
        self._status: int | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._status = int(json.loads(self._response.read())["StatusCode"])

    def status(self, timeout_s: float | None = None) -> int | None:
        """The exit code; None when it has not ended in time."""
        self._thread.join(timeout_s)
        return self._status


def run(client: Client, identity: str, wanted: Attached, *, removes: bool, proxies: bool) -> int:
    """Attach to a container that has not begun, start it, and give its exit code."""
    connection, kind = client.take_over(f"/containers/{identity}/attach", query=_query(wanted))
    wait = _Wait(client, identity, "removed" if removes else "next-exit")
    with _signals(client, identity, proxies=proxies):
        client.request("POST", f"/containers/{identity}/start").read()
        _move(
            client,
            f"/containers/{identity}",
            wanted,
            Streams(connection, framed=_framed(kind, wanted), stdin=wanted.stdin),
        )
        return _result(client, identity, wanted, wait)


def attach(client: Client, identity: str, wanted: Attached, *, proxies: bool) -> int:
    """Attach to a container that runs; its exit code, or 0 when the client was detached."""
    wait = _Wait(client, identity, "not-running")
    connection, kind = client.take_over(f"/containers/{identity}/attach", query=_query(wanted))
    with _signals(client, identity, proxies=proxies):
        _move(
            client,
            f"/containers/{identity}",
            wanted,
            Streams(connection, framed=_framed(kind, wanted), stdin=wanted.stdin),
        )
        return _result(client, identity, wanted, wait)


def _result(client: Client, identity: str, wanted: Attached, wait: _Wait) -> int:
    status = wait.status(_DETACHED_S) if wanted.tty and wanted.stdin else wait.status()
    if status is None and wanted.tty and _runs(client, identity):
        return 0  # the stream has ended and the container has not: somebody pressed the detach keys
    status = wait.status() if status is None else status
    if status is None:
        raise LaminaError(
            "the daemon went away while the container ran", hint=f"when it is back: lamina logs {identity[:12]}"
        )
    return status


def _runs(client: Client, identity: str) -> bool:
    try:
        return bool(client.call("GET", f"/containers/{identity}/json")["State"]["Running"])
    except NotFound:
        return False


def _move(client: Client, resource: str, wanted: Attached, streams: Streams) -> None:
    if not wanted.tty:
        streams.run()
        return

    def resize(rows: int, columns: int) -> None:
        # It may have ended, or its terminal may not be there yet.
        with contextlib.suppress(LaminaError):
            client.request("POST", f"{resource}/resize", query={"h": rows, "w": columns}).read()

    keys = raw_mode() if wanted.stdin and sys.stdin.isatty() else contextlib.nullcontext()
    with keys, resizing(resize) if sys.stdout.isatty() else contextlib.nullcontext():
        streams.run()


@contextlib.contextmanager
def _signals(client: Client, identity: str, *, proxies: bool) -> Iterator[None]:
    def kill(name: str) -> None:
        with contextlib.suppress(LaminaError):  # it has ended
            client.request("POST", f"/containers/{identity}/kill", query={"signal": name}).read()

    with proxied_signals(kill) if proxies else contextlib.nullcontext():
        yield


def _query(wanted: Attached) -> dict[str, object]:
    return {
        "stream": True,
        "stdin": wanted.stdin,
        "stdout": wanted.stdout,
        "stderr": wanted.stderr,
        "detachKeys": wanted.detach_keys or None,
    }


def require_terminal(*, tty: bool, stdin: bool) -> None:
    """Keys for a container's terminal can only come from a terminal.

    Raises:
        click.UsageError: standard input is none.
    """
    if tty and stdin and not sys.stdin.isatty():
        raise click.UsageError("the input device is not a TTY: leave -t out")


def _framed(kind: str, wanted: Attached) -> bool:
    return kind == _MULTIPLEXED or not wanted.tty


def exec_(client: Client, exec_id: str, wanted: Attached) -> int:
    """Start an exec in the foreground; its exit code."""
    connection, kind = client.take_over(f"/exec/{exec_id}/start", body={"Detach": False, "Tty": wanted.tty})
    _move(client, f"/exec/{exec_id}", wanted, Streams(connection, framed=_framed(kind, wanted), stdin=wanted.stdin))
    return int(client.call("GET", f"/exec/{exec_id}/json").get("ExitCode") or 0)
