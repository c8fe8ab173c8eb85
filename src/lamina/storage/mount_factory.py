"""Mount helpers that are kept warm: the second mount by one costs a fork instead of the start of a program (blocking).

A factory lives as long as the object here: it ends when its socket closes, also when the daemon is killed. What it has
mounted goes on being served.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import weakref
from contextlib import suppress
from pathlib import Path

from lamina.errors import LaminaError, ProcessFailed
from lamina.kernel.mounts import Mount, is_mountpoint, unmount
from lamina.programs.run import run
from lamina.storage.mount_helper import PATIENCE_S, carry_out

_READY = b"ready\n"
_LONGEST_WORDS = 1 << 17
_LONGEST_ANSWER = 1 << 16
_Key = tuple[tuple[str, ...], Path | None]


class MountFactories:
    """Carries out mounts, by a warm helper where there is one. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: dict[_Key, socket.socket] = {}
        weakref.finalize(self, _close_all, self._sockets)

    def carry_out(self, wanted: Mount) -> None:
        """Make one mount, as `mount_helper.carry_out`. On error nothing of it is left."""
        words = "\0".join(wanted.helper[wanted.factory :]).encode(errors="surrogateescape")
        if not wanted.factory or len(words) > _LONGEST_WORDS:
            carry_out(wanted)
            return
        reading, writing = os.pipe()
        try:
            try:
                sent = self._ask(wanted, words, writing)
            finally:
                os.close(writing)
            if not sent:
                carry_out(wanted)
                return
            _hear(wanted, reading)
        finally:
            os.close(reading)

    def _ask(self, wanted: Mount, words: bytes, tell_fd: int) -> bool:
        """Send a request to the factory, which is started when there is none; False when that fails."""
        key = (wanted.helper[: wanted.factory], wanted.cwd)
        with self._lock:
            for _ in range(2):
                try:
                    control = self._sockets.get(key) or self._start(key)
                    socket.send_fds(control, [words], [tell_fd])
                except (OSError, LaminaError):
                    with suppress(KeyError):
                        self._sockets.pop(key).close()
                else:
                    return True
        return False

    def _start(self, key: _Key) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                words = (*key[0], "--factory", str(theirs.fileno()))
                run(words, pass_fds=(theirs.fileno(),), cwd=key[1], new_session=True, timeout=PATIENCE_S)
            except BaseException:
                ours.close()
                raise
        self._sockets[key] = ours
        return ours


def _hear(wanted: Mount, reading: int) -> None:
    """Wait for the new server's word."""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    said = os.read(reading, _LONGEST_ANSWER) if poll.poll(PATIENCE_S * 1000) else b"it does not answer"
    if said == _READY and is_mountpoint(wanted.target):
        return
    with suppress(OSError):  # it may have got as far as mounting
        unmount(wanted.target, detach=True)
    told = said.decode(errors="replace").strip() or "its server ended without a word"
    raise ProcessFailed(f"{wanted.fstype} could not be mounted on {wanted.target}: {told}")


def _close_all(sockets: dict[_Key, socket.socket]) -> None:
    for one in sockets.values():
        one.close()
