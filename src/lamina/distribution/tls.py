"""Whom to trust at which registry: the system's authorities and `certs.d` (blocking).

Source: Docker's "Verify repository client with certificates": below `certs.d/HOST[:PORT]/` every `*.crt` is a further
authority, every `NAME.cert` with `NAME.key` a client certificate.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path

from lamina.errors import InvalidArgument


class TlsContexts:
    """TLS contexts by registry. A changed directory is seen at the next use. Threads may call."""

    def __init__(self, certs_dirs: Sequence[Path]) -> None:
        self._certs_dirs = tuple(certs_dirs)
        self._lock = threading.Lock()
        self._contexts: dict[tuple[str, bool], tuple[tuple[tuple[str, int], ...], ssl.SSLContext]] = {}

    def context(self, domain: str, *, insecure: bool) -> ssl.SSLContext:
        """The context for `HOST[:PORT]`. `insecure`: encrypted, but with whoever answers.

        Raises:
            InvalidArgument: a file of `certs.d` cannot be used; the message names it.
        """
        files = self._files(domain)
        seen = tuple((os.fspath(path), path.stat().st_mtime_ns) for path in files)
        with self._lock:
            cached = self._contexts.get((domain, insecure))
            if cached is not None and cached[0] == seen:
                return cached[1]
            context = _build(files, insecure=insecure)
            self._contexts[domain, insecure] = (seen, context)
            return context

    def _files(self, domain: str) -> list[Path]:
        if "/" in domain or domain in ("", ".", ".."):
            return []
        found: list[Path] = []
        for directory in self._certs_dirs:
            try:
                names = sorted(os.listdir(directory / domain))
            except (FileNotFoundError, NotADirectoryError):
                continue
            found += [directory / domain / name for name in names if name.endswith((".crt", ".cert", ".key"))]
        return found


def _build(files: Sequence[Path], *, insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    names = {os.fspath(path) for path in files}
    for path in files:
        if path.suffix == ".crt":
            _load_authority(context, path)
        elif path.suffix == ".cert":
            key = os.fspath(path.with_suffix(".key"))
            if key not in names:
                raise InvalidArgument(
                    f"missing key {path.with_suffix('.key').name} for client certificate {path}",
                    hint="certificates of authorities end in .crt",
                )
            _load_client(context, path, key)
    return context


def _load_authority(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError) as error:
        raise InvalidArgument(f"{path} holds no certificate that can be read: {error}") from error


def _load_client(context: ssl.SSLContext, certificate: Path, key: str) -> None:
    try:
        # A key with a passphrase must not ask the daemon's terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        raise InvalidArgument(f"client certificate {certificate} and its key cannot be used: {error}") from error
