"""Times as people type them: RFC 3339, a date, Unix seconds, or how long ago (`10m`, `1h30m`)."""

from __future__ import annotations

import re
import time
from datetime import datetime

from lamina.errors import InvalidArgument

_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def as_unix_time(text: str | None) -> str | None:
    """Seconds since the epoch with a fraction, as the API takes it; None for None.

    Raises:
        InvalidArgument: none of the forms.
    """
    if not text:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    if re.fullmatch(r"(\d+(\.\d+)?(h|ms|m|s))+", text):
        back = sum(float(amount) * _SECONDS[unit] for amount, unit in _PART.findall(text))
        return f"{time.time() - back:.9f}"
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise InvalidArgument(
            f"cannot read {text!r} as a time", hint="such as 2026-01-31T10:00:00, or 10m for ten minutes ago"
        ) from None
    return f"{moment.astimezone().timestamp():.9f}"
