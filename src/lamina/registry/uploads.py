"""Uploads under way: bytes appended to a file, hashed as they come (blocking).

An upload lives in `uploads/<id>/` until it is finished or cancelled, across restarts too: its size is the size of the
file, and a lost hash state is computed again from the file. The caller lets one thread at a time into one upload.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lamina.clock import Clock
from lamina.errors import DigestMismatch, NotFound
from lamina.kernel import durable
from lamina.oci.digest import Digest, algorithm_of
from lamina.registry.files import RegistryFiles, make_dirs_durably, told_when_full

FORGOTTEN_AFTER_S = 7 * 24 * 3600
_ID = re.compile(r"[0-9a-f]{32}")
_HASH_STATES = 64
_READ_BYTES = 1 << 20


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(slots=True)
class _HashState:
    sha256: _Hash
    size_bytes: int


class Uploads:
    """The uploads of all repositories."""

    def __init__(self, files: RegistryFiles, clock: Clock) -> None:
        self._files = files
        self._directory = files.root / "uploads"
        self._clock = clock
        self._states: OrderedDict[str, _HashState] = OrderedDict()

    def sweep(self) -> int:
        """Remove uploads that nobody has touched for a week; how many."""
        oldest = self._clock.now_ns() - FORGOTTEN_AFTER_S * 1_000_000_000
        removed = 0
        for upload_id in os.listdir(self._directory):
            data = self._directory / upload_id / "data"
            if _ID.fullmatch(upload_id) and (not data.exists() or data.stat().st_mtime_ns < oldest):
                self._remove(upload_id)
                removed += 1
        return removed

    def begin(self, repository: str) -> str:
        """A new, empty upload. Its id cannot be guessed: it is what lets a client go on."""
        upload_id = os.urandom(16).hex()
        with told_when_full(self._files.root):
            make_dirs_durably(self._directory / upload_id)
            durable.write_file_lazy(self._directory / upload_id / "repository", repository.encode())
            durable.write_file_lazy(self._data(upload_id), b"")
        return upload_id

    def offset(self, repository: str, upload_id: str) -> int:
        """How many bytes the upload has.

        Raises:
            NotFound: no such upload in this repository.
        """
        if not _ID.fullmatch(upload_id):
            raise NotFound("blob upload unknown to registry")
        with contextlib.suppress(FileNotFoundError):  # answered below, as an upload of another repository is
            if (self._directory / upload_id / "repository").read_text() == repository:
                return self._data(upload_id).stat().st_size
        raise NotFound("blob upload unknown to registry")

    def append(self, upload_id: str, chunk: bytes) -> int:
        """Write after the last byte; the new size. On error the upload is as long as it was."""
        path = self._data(upload_id)
        with told_when_full(self._files.root):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                size = os.lseek(fd, 0, os.SEEK_END)
                state = self._state(upload_id, size)
                try:
                    _write_all(fd, chunk)
                except OSError:
                    os.ftruncate(fd, size)
                    raise
            finally:
                os.close(fd)
        state.sha256.update(chunk)
        state.size_bytes += len(chunk)
        return state.size_bytes

    def finish(self, repository: str, upload_id: str, digest: Digest) -> None:
        """Make the upload the blob `digest` of the repository; the upload is gone, also when it is refused.

        Raises:
            DigestMismatch: the bytes have another digest.
        """
        path = self._data(upload_id)
        found = self._digest(upload_id, algorithm_of(digest))
        if found != digest:
            self.cancel(upload_id)
            raise DigestMismatch(
                f"provided digest did not match uploaded content: {digest} announced, {found} received"
            )
        with told_when_full(self._files.root):
            with path.open("rb") as data:
                os.fsync(data.fileno())
            self._files.adopt_blob(repository, digest, path)
        self.cancel(upload_id)

    def cancel(self, upload_id: str) -> None:
        """Forget the upload. Again is fine."""
        self._states.pop(upload_id, None)
        self._remove(upload_id)

    def _digest(self, upload_id: str, algorithm: str) -> str:
        if algorithm == "sha256":
            state = self._state(upload_id, self._data(upload_id).stat().st_size)
            return f"sha256:{state.sha256.hexdigest()}"
        with self._data(upload_id).open("rb") as data:
            return f"{algorithm}:{hashlib.file_digest(data, algorithm).hexdigest()}"

    def _state(self, upload_id: str, size: int) -> _HashState:
        state = self._states.get(upload_id)
        if state is None or state.size_bytes != size:
            with self._data(upload_id).open("rb") as data:
                state = _HashState(hashlib.file_digest(data, "sha256"), size)
        self._states[upload_id] = state
        self._states.move_to_end(upload_id)
        while len(self._states) > _HASH_STATES:
            self._states.popitem(last=False)
        return state

    def _remove(self, upload_id: str) -> None:
        directory = self._directory / upload_id
        for name in ("data", "repository"):
            (directory / name).unlink(missing_ok=True)
        try:
            directory.rmdir()
        except FileNotFoundError:
            return

    def _data(self, upload_id: str) -> Path:
        return self._directory / upload_id / "data"


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
