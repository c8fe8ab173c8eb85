"""The layer store is what the image store wants it to be."""

from __future__ import annotations

import pytest

from lamina.images.holds import LayerHolds
from tests.unit.images.stores import Real, docker_archive, known_layers


@pytest.mark.root
def test_images_hold_their_layers_again_after_a_start(real: Real) -> None:
    holds: LayerHolds = real.layers
    (loaded,) = real.load(docker_archive(known_layers()))
    top = real.images.get(loaded.image).top
    assert top is not None
    real.layers.load()
    real.images._images.clear()
    assert real.images.load() == []
    holds.hold(top)
    assert holds.release(top) == ()
    assert len(real.images.delete(loaded.image)) == 2
