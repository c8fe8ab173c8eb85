"""The heart of the suite again over devicemapper's other shapes: layers on xfs, and a pool that was made before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import test_storage_driver as driver_cases
from tests.conformance import test_storage_mounting as mounting_cases
from tests.conformance import test_storage_telling as telling_cases
from tests.conformance.conftest import Bench, benched
from tests.conformance.grounds_devicemapper import on_a_pool, on_loop_files, open_on_a_pool, open_on_loop_files
from tests.conformance.hosts import Host

pytestmark = [pytest.mark.root, pytest.mark.vm_guest("devicemapper")]

VARIANTS = (
    Host("devicemapper-xfs", open_on_loop_files("xfs"), ground=on_loop_files("xfs"), tiny=None),
    Host("devicemapper-pool", open_on_a_pool, ground=on_a_pool, tiny=None),
)


@pytest.fixture(params=VARIANTS, ids=lambda host: host.name)
def bench(request: pytest.FixtureRequest, place: Path) -> Iterator[Bench]:
    host: Host = request.param
    with benched(host, host.ground, place / "ground") as found:
        yield found


class TestWhatALayerShows(driver_cases.TestWhatALayerShows):
    pass


class TestRemoving(driver_cases.TestRemoving):
    pass


class TestCreating(driver_cases.TestCreating):
    pass


class TestMounting(mounting_cases.TestMounting):
    pass


class TestTelling(telling_cases.TestTelling):
    pass
