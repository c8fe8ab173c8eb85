"""Signal names and numbers as the Engine API takes them (pure, but for the host's own table of names).

Source: moby/sys signal, ParseSignal.
"""

from __future__ import annotations

import re
import signal

from lamina.errors import InvalidArgument

DEFAULT_STOP = 15
_RT_MIN, _RT_MAX = 34, 64
_REALTIME = re.compile(r"RTMIN(?:\+(\d{1,2}))?|RTMAX(?:-(\d{1,2}))?")


def parse_signal(text: str) -> int:
    """`TERM`, `SIGTERM`, `15`, `RTMIN+3`, in any case.

    Raises:
        InvalidArgument: no such signal, in Docker's words.
    """
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) < 4 else 0
        if not 0 < number <= _RT_MAX:
            raise InvalidArgument(f"invalid signal: {text[:80]}")
        return number
    name = text.upper().removeprefix("SIG")
    realtime = _REALTIME.fullmatch(name)
    if realtime:
        number = _RT_MIN + int(realtime[1] or 0) if name.startswith("RTMIN") else _RT_MAX - int(realtime[2] or 0)
        if _RT_MIN <= number <= _RT_MAX:
            return number
    found = getattr(signal.Signals, f"SIG{name}", None)
    if not isinstance(found, signal.Signals):
        raise InvalidArgument(f"invalid signal: {text[:80]}")
    return int(found)
