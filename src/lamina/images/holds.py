"""What the image store wants of the layer store: that the layers of an image stay while the image does (blocking)."""

from __future__ import annotations

from typing import Protocol

from lamina.oci.digest import ChainId


class LayerHolds(Protocol):
    """Holds on chains; the layer store is one."""

    def exists(self, chain_id: ChainId) -> bool:
        """Whether the chain is registered."""

    def hold(self, chain_id: ChainId) -> object:
        """One more reason why the chain may not go. Raises NoSuchLayer."""

    def release(self, chain_id: ChainId) -> tuple[ChainId, ...]:
        """One reason less; the chains that went away with the last one, uppermost first."""
