"""What the aufs driver needs of a kernel: aufs itself, or FUSE."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lamina.errors import Unsupported
from lamina.storage.aufs.probe import probe


def no_union() -> str:
    """Why neither union can be mounted here; empty when one can."""
    if os.geteuid() != 0:
        return "needs root"
    try:
        probe(Path(tempfile.gettempdir()))
    except Unsupported as error:
        return error.message
    return ""
