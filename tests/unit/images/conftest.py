"""Fixtures of the image tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.layers.pool import WorkerPool
from tests.unit.images.stores import DRIVERS, Plain, Real


@pytest.fixture
def plain(tmp_path: Path) -> Plain:
    return Plain(tmp_path)


@pytest.fixture(scope="session")
def pool() -> Iterator[WorkerPool]:
    """One for all tests: a worker takes longer to start than its work here."""
    with WorkerPool() as workers:
        yield workers


@pytest.fixture(params=sorted(DRIVERS))
def real(request: pytest.FixtureRequest, tmp_path: Path, pool: WorkerPool) -> Iterator[Real]:
    stores = Real(tmp_path, request.param, pool)
    yield stores
    stores.close()
