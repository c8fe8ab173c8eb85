"""The conversation with the kernel over one descriptor: first words, then threads that each serve whole requests."""

from __future__ import annotations

import errno
import os
import threading
import traceback
from collections.abc import Callable

from lamina.unionfs.requests import Requests
from lamina.wire.fuse import opcodes, replies
from lamina.wire.fuse import requests as decode
from lamina.wire.fuse.opcodes import Init

MAX_WRITE = 1 << 20
_BUFFER = MAX_WRITE + (64 << 10)
_WANTED = (
    Init.ASYNC_READ | Init.ATOMIC_O_TRUNC | Init.BIG_WRITES | Init.DONT_MASK | Init.DO_READDIRPLUS
    | Init.READDIRPLUS_AUTO | Init.ASYNC_DIO | Init.PARALLEL_DIROPS | Init.POSIX_ACL | Init.MAX_PAGES
    | Init.CACHE_SYMLINKS | Init.HANDLE_KILLPRIV_V2 | Init.SETXATTR_EXT | Init.INIT_EXT
)  # fmt: skip
_GONE = {errno.ENODEV, errno.ECONNABORTED}
_AGAIN = {errno.EINTR, errno.EAGAIN, errno.ENOENT}


class Session:
    """Serves one mount until it is unmounted."""

    def __init__(self, device: int, requests: Requests, log: Callable[[str], None]) -> None:
        self._device = device
        self._requests = requests
        self._log = log
        requests.tell_kernel_by(self._tell)

    def greet(self, *, passthrough: bool) -> bool:
        """Answer the first request of a mount; whether the kernel will read and write files by itself.

        Raises:
            OSError: EPROTO when the kernel speaks another language; ENODEV when it is unmounted already.
        """
        buffer = bytearray(_BUFFER)
        length = self._receive(buffer)
        _, opcode, unique, *_ = decode.HEADER.unpack_from(buffer)
        if opcode != opcodes.Opcode.INIT:
            raise OSError(errno.EPROTO, f"the first request is number {opcode}, not INIT")
        offer = decode.init(buffer, length)
        if offer.major != opcodes.MAJOR or offer.minor < opcodes.OLDEST_MINOR:
            os.write(self._device, replies.failure(errno.EPROTO, unique))
            raise OSError(errno.EPROTO, f"the kernel speaks FUSE {offer.major}.{offer.minor}")
        wanted = int(_WANTED | (Init.PASSTHROUGH if passthrough else 0))
        taken = offer.flags & wanted
        self._requests.extended_setxattr = bool(taken & Init.SETXATTR_EXT)
        body = replies.init(
            replies.InitOut(
                minor=min(offer.minor, opcodes.MINOR),
                max_readahead=offer.max_readahead,
                flags=taken,
                max_background=64,
                congestion_threshold=48,
                max_write=MAX_WRITE,
                max_pages=MAX_WRITE // 4096,
                max_stack_depth=1 if taken & Init.PASSTHROUGH else 0,
            )
        )
        os.writev(self._device, [replies.header(len(body), unique), body])
        return bool(taken & Init.PASSTHROUGH)

    def serve(self, threads: int) -> None:
        """Serve until the file system is unmounted."""
        workers = [threading.Thread(target=self._work, name=f"serve-{number}") for number in range(1, threads)]
        for worker in workers:
            worker.start()
        self._work()
        for worker in workers:
            worker.join()

    def _work(self) -> None:
        buffer = bytearray(_BUFFER)
        room = [buffer]
        device, methods, unpack = self._device, self._requests.methods, decode.HEADER.unpack_from
        readv, writev, header = os.readv, os.writev, replies.HEADER.pack
        while True:
            try:
                length = readv(device, room)
            except OSError as error:
                if error.errno in _AGAIN:
                    continue
                if error.errno not in _GONE:
                    self._log(f"reading from the kernel failed: {error}")
                return
            _, opcode, unique, nodeid, uid, gid, _, _, _ = unpack(buffer)
            method = methods.get(opcode)
            if method is None:
                self._answer([replies.failure(errno.ENOSYS, unique)])
                continue
            try:
                body = method(buffer, length, nodeid, uid, gid)
            except OSError as error:
                self._answer([replies.failure(error.errno or errno.EIO, unique)])
                continue
            except Exception:  # noqa: BLE001 - one request fails, the mount lives on
                self._log(f"request {opcode} of node {nodeid} failed:\n{traceback.format_exc()}")
                self._answer([replies.failure(errno.EIO, unique)])
                continue
            if body is None:
                continue
            try:
                writev(device, [header(16 + len(body), 0, unique), body])
            except OSError as error:
                self._unanswered(error)

    def _answer(self, parts: list[bytes]) -> None:
        try:
            os.writev(self._device, parts)
        except OSError as error:
            self._unanswered(error)

    def _unanswered(self, error: OSError) -> None:
        """ENOENT: whoever asked was interrupted and waits no more. ENODEV: unmounted."""
        if error.errno not in {errno.ENOENT, *_GONE}:
            self._log(f"an answer could not be given: {error}")

    def _tell(self, message: bytes) -> None:
        self._answer([message])

    def _receive(self, buffer: bytearray) -> int:
        while True:
            try:
                return os.readv(self._device, [buffer])
            except OSError as error:
                if error.errno not in _AGAIN:
                    raise
