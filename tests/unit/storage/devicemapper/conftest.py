"""The store that most of the driver's cases work on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.storage.devicemapper.stores import Store, left_of, store_at


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with store_at(tmp_path / "g") as found:
        yield found
    assert left_of(found) == []
