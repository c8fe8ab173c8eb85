"""The engine under test: Lamina, or a real dockerd (LAMINA_TEST_ENGINE=dockerd) to check that the tests are right."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e import images
from tests.e2e.engines import Engine

KIND = os.environ.get("LAMINA_TEST_ENGINE", "lamina")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e" in str(item.path):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="module")
def module_engine() -> Iterator[Engine]:
    engine = Engine(kind=KIND)
    try:
        engine.start()
        engine.docker("load", stdin=images.busybox())
        yield engine
    finally:
        engine.destroy()


@pytest.fixture
def engine(module_engine: Engine) -> Iterator[Engine]:
    """A running engine with busybox loaded; containers of a test are gone after it."""
    yield module_engine
    module_engine.remove_containers()


@pytest.fixture
def fresh_engine() -> Iterator[Engine]:
    """An engine that a test may kill; not started yet."""
    engine = Engine(kind=KIND)
    try:
        yield engine
    finally:
        engine.destroy()
