"""The event loop never blocks: whoever reads a file or sleeps on it fails the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(autouse=True)
def loop_never_blocks() -> Iterator[BlockBuster]:
    with blockbuster_ctx("lamina") as found:
        yield found
