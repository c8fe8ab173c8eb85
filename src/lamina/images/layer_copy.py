"""The changes of one layer registered again on top of another parent (blocking)."""

from __future__ import annotations

import os
import threading

from lamina.layers.store import LayerStore
from lamina.oci.digest import ChainId


def register_copy(layers: LayerStore, source: ChainId, parent: ChainId | None) -> None:
    """Register what `source` changes as a child of `parent` too; takes one hold on the new layer."""
    read_end, write_end = os.pipe()
    failures: list[BaseException] = []

    def pour() -> None:
        try:
            with os.fdopen(write_end, "wb") as out:
                layers.write_tar(source, out)
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that asked
            failures.append(error)

    thread = threading.Thread(target=pour, name="layer-copy")
    thread.start()
    try:
        with os.fdopen(read_end, "rb") as tar:
            copy = layers.register(tar, parent)
    finally:
        thread.join()
    if failures:
        layers.release(copy.chain_id)
        raise failures[0]
