"""A layer store over each driver that this host can run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.layers.store import LayerStore
from lamina.storage.mounting import Mounts
from lamina.storage.select import choose_driver

OpenStore = Callable[[], LayerStore]


@pytest.fixture(params=["overlay2", "vfs"])
def driver_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_store(tmp_path: Path, driver_name: str) -> OpenStore:
    """Opens the store of one data root, as a daemon that starts does; again gives a second view of it."""

    def opened() -> LayerStore:
        driver = choose_driver(tmp_path / "root", driver_name, {})
        store = LayerStore(tmp_path / "root" / "image" / driver_name / "layerdb", driver, Mounts(driver))
        assert store.load() == []
        return store

    return opened


@pytest.fixture
def store(open_store: OpenStore) -> LayerStore:
    return open_store()


@pytest.fixture
def layerdb(tmp_path: Path, driver_name: str) -> Path:
    return tmp_path / "root" / "image" / driver_name / "layerdb"


@pytest.fixture
def driver_home(tmp_path: Path, driver_name: str) -> Path:
    """Where the driver keeps one directory per layer."""
    return tmp_path / "root" / ("overlay2" if driver_name == "overlay2" else "vfs/dir")
