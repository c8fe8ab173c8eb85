"""Real stores over each storage driver."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.engine.stores import Stores


@pytest.fixture(params=["overlay2", "vfs"])
def stores(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stores]:
    found = Stores(tmp_path / "root", request.param)
    yield found
    found.close()
