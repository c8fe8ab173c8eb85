"""One layer's changes on top of two parents."""

from __future__ import annotations

import io

import pytest

from lamina.errors import DataLoss
from lamina.images.layer_copy import register_copy
from lamina.oci.digest import DiffId, chain_id
from tests.unit.images.stores import Real, known_layers

pytestmark = pytest.mark.root
FIRST, SECOND = known_layers()


def test_a_copy_is_a_layer_of_its_own_with_the_same_bytes(real: Real) -> None:
    base = real.layers.register(io.BytesIO(FIRST), None)
    source = real.layers.register(io.BytesIO(SECOND), None)
    register_copy(real.layers, source.chain_id, base.chain_id)
    copy = real.layers.get(chain_id(base.chain_id, DiffId(source.diff_id)))
    assert copy.cache_id != source.cache_id
    out = io.BytesIO()
    real.layers.write_tar(copy.chain_id, out)
    assert out.getvalue() == SECOND


def test_a_damaged_source_gives_no_copy(real: Real) -> None:
    source = real.layers.register(io.BytesIO(FIRST), None)
    for found in (real.root / real.driver.name).rglob("data/a"):
        found.write_bytes(b"B" * 600)
    with pytest.raises(DataLoss):
        register_copy(real.layers, source.chain_id, source.chain_id)
    assert len(real.layers.layers()) == 1
