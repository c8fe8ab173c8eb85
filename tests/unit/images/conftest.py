"""Fixtures of the image tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.images.stores import DRIVERS, Plain, Real


@pytest.fixture
def plain(tmp_path: Path) -> Plain:
    return Plain(tmp_path)


@pytest.fixture(params=sorted(DRIVERS))
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Real]:
    stores = Real(tmp_path, request.param)
    yield stores
    stores.close()
