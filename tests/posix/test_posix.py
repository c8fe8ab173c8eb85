"""Every promise of POSIX and Linux in the register, over every ground of the table."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.rootfs.remove import remove_tree
from tests.posix import attributes, contents, locking, naming, opening
from tests.posix.cases import CASES, Case, Place
from tests.posix.grounds import GROUNDS, Ground

pytestmark = pytest.mark.root

REGISTERED = (attributes, contents, locking, naming, opening)
BY_NAME = {case.name: case for case in CASES}


class Prepared:
    """One ground, mounted, with every case's place on it."""

    def __init__(
        self, ground: Ground, lower: Path, merged: Path, begun: dict[str, Iterator[None]], places: dict[str, Place]
    ) -> None:
        self.ground = ground
        self._lower = lower
        self._merged = merged
        self._begun = begun
        self._places = places

    def run(self, case: Case) -> None:
        """The checks of one case; on grounds without files below its preparation too."""
        if self.ground.below:
            place, running = self._places[case.name], self._begun.pop(case.name)
            place.root = self._merged / case.name
        else:
            place = Place(self._merged / case.name)
            place.root.mkdir()
            running = case.begin(place)
        for _ in running:
            pass


@pytest.fixture(scope="module", params=GROUNDS, ids=lambda ground: ground.name)
def prepared(request: pytest.FixtureRequest) -> Iterator[Prepared]:
    ground: Ground = request.param
    base = Path(tempfile.mkdtemp(prefix="lamina-posix-"))
    base.chmod(0o755)  # other users must get through
    lower = base / "lower"
    lower.mkdir()
    places: dict[str, Place] = {}
    begun: dict[str, Iterator[None]] = {}
    if ground.below:
        for case in CASES:
            (lower / case.name).mkdir()
            places[case.name] = Place(lower / case.name)
            begun[case.name] = case.begin(places[case.name])
    try:
        with ground.mounted(lower, base / "ground") as merged:
            yield Prepared(ground, lower, merged, begun, places)
    finally:
        remove_tree(base)


@pytest.mark.parametrize("name", BY_NAME)
def test_it_is_as_posix_promises(prepared: Prepared, name: str) -> None:
    reason = prepared.ground.deviations.get(name)
    if reason is None:
        prepared.run(BY_NAME[name])
        return
    with pytest.raises((OSError, AssertionError)):
        prepared.run(BY_NAME[name])


def test_the_list_is_long_enough_to_mean_something() -> None:
    assert len(BY_NAME) == len(CASES) >= 150
