"""Spools unpacked by worker processes."""

from __future__ import annotations

import threading

import pytest

from lamina.errors import DataLoss, LaminaError
from lamina.images.spool import Spool
from lamina.images.unpacking import SpoolUnpacker
from tests.unit.images.stores import Real, known_layers, sha256

pytestmark = pytest.mark.root


def test_a_spool_is_unpacked_while_it_grows(real: Real) -> None:
    layer = known_layers()[0]
    spool, staged = Spool(real.scratch), real.layers.stage(None)

    def write() -> None:
        for at in range(0, len(layer), 100):
            spool.write(memoryview(layer[at : at + 100]))
        spool.done()

    thread = threading.Thread(target=write)
    thread.start()
    unpacked = SpoolUnpacker(real.pool)(spool, staged)
    thread.join()
    assert unpacked.diff_id == sha256(layer)
    real.layers.discard(staged)
    spool.close()


@pytest.mark.parametrize("data", [b"no tar at all" * 1000, known_layers()[0][:700]])
def test_what_is_no_layer_is_refused_with_the_reason(real: Real, data: bytes) -> None:
    spool, staged = Spool(real.scratch), real.layers.stage(None)
    spool.write(memoryview(data))
    spool.done()
    with pytest.raises(LaminaError):
        SpoolUnpacker(real.pool)(spool, staged)
    real.layers.discard(staged)
    spool.close()


def test_an_abandoned_spool_ends_the_worker(real: Real) -> None:
    spool, staged = Spool(real.scratch), real.layers.stage(None)
    spool.write(memoryview(known_layers()[0][:600]))
    spool.abandon()
    with pytest.raises(DataLoss):
        SpoolUnpacker(real.pool)(spool, staged)
    real.layers.discard(staged)
    spool.close()
    assert real.is_empty()
