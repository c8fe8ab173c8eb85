"""All rows of the Engine API, in the order in which they are tried (async package)."""

from __future__ import annotations

from lamina.api.routes import (
    archive,
    containers,
    execs,
    images,
    lending,
    networks,
    plugins,
    prune,
    streams,
    system,
    unserved,
    volumes,
)

ROWS = (
    *system.ROWS,
    *containers.ROWS,
    *streams.ROWS,
    *execs.ROWS,
    *archive.ROWS,
    *images.ROWS,
    *volumes.ROWS,
    *networks.ROWS,
    *plugins.ROWS,
    *prune.ROWS,
    *lending.ROWS,
    *unserved.ROWS,
)
