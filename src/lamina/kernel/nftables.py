"""Packet filter rules by libnftables: one text, one transaction (blocking).

This is the second file that uses ctypes (the first is `libc.py`): the library is loaded on first use, so a daemon
without a bridge neither needs it nor pays for it. Source: libnftables(3), nft(8).
"""

from __future__ import annotations

import ctypes
import threading

from lamina.errors import Unsupported

_LIBRARY = "libnftables.so.1"


class Nftables:
    """Runs rule sets in the network namespace of the calling thread."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        self._lock = threading.Lock()

    def run(self, rules: str) -> None:
        """Apply `rules` (the language of nft(8)): all of them, or none.

        Raises:
            Unsupported: the library is not installed, or the kernel refuses the rules.
        """
        with self._lock:
            library = self._load()
            context = library.nft_ctx_new(0)
            if not context:
                raise Unsupported("libnftables gives no context", hint="does this kernel have nf_tables?")
            try:
                library.nft_ctx_buffer_output(context)
                library.nft_ctx_buffer_error(context)
                if library.nft_run_cmd_from_buffer(context, rules.encode()) != 0:
                    told = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace").strip()
                    first = told.splitlines()[0] if told else "no message"
                    raise Unsupported(f"cannot set packet filter rules: {first}", hint="is nf_tables in this kernel?")
            finally:
                library.nft_ctx_free(context)

    def _load(self) -> ctypes.CDLL:
        if self._library is not None:
            return self._library
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise Unsupported(
                f"{_LIBRARY} cannot be loaded: {error}",
                hint="install the package libnftables1 (Debian) or nftables, or start with --bridge none",
            ) from error
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        library.nft_run_cmd_from_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        for name in ("buffer_output", "buffer_error", "get_error_buffer", "free"):
            getattr(library, f"nft_ctx_{name}").argtypes = (ctypes.c_void_p,)
        self._library = library
        return library
