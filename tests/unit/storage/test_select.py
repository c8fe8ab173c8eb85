from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.errors import Conflict, InvalidArgument, Unsupported
from lamina.kernel.mounts import Mount, mount, unmount
from lamina.storage.select import choose_driver, prior_drivers, survey


def used(root: Path, *names: str) -> None:
    for name in names:
        (root / name / "something").mkdir(parents=True)


def test_an_empty_driver_directory_is_no_prior_state(tmp_path: Path) -> None:
    (tmp_path / "btrfs").mkdir()
    assert prior_drivers(tmp_path) == []


def test_anything_else_under_a_drivers_name_is(tmp_path: Path) -> None:
    used(tmp_path, "zfs", "overlay2", "vfs")
    (tmp_path / "aufs").touch()
    assert prior_drivers(tmp_path) == ["overlay2", "zfs", "aufs"]


def test_state_of_several_drivers_is_refused(tmp_path: Path) -> None:
    used(tmp_path, "overlay2", "btrfs")
    with pytest.raises(Conflict, match="contains several valid graphdrivers: overlay2, btrfs"):
        choose_driver(tmp_path, None, {})


def test_state_of_a_driver_that_is_not_built_is_not_walked_past(tmp_path: Path) -> None:
    used(tmp_path, "overlay")
    with pytest.raises(Unsupported, match="overlay, which is not built yet"):
        choose_driver(tmp_path, None, {})
    assert os.listdir(tmp_path) == ["overlay"]


def test_a_requested_driver_wins_over_prior_state(tmp_path: Path) -> None:
    used(tmp_path, "overlay2", "btrfs")
    assert choose_driver(tmp_path, "vfs", {}).name == "vfs"


def test_an_unknown_driver_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="unknown storage driver 'nope'") as caught:
        choose_driver(tmp_path, "nope", {})
    assert {"overlay2", "vfs", "btrfs"} <= set(caught.value.hint.removeprefix("choose one of: ").split(", "))


def test_a_driver_that_is_not_built_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="fuse-overlayfs is not built yet"):
        choose_driver(tmp_path, "fuse-overlayfs", {})


@pytest.mark.parametrize(("driver", "option"), [("vfs", "vfs.nope"), ("vfs", "overlay2.size")])
def test_an_option_the_driver_does_not_know_is_refused(tmp_path: Path, driver: str, option: str) -> None:
    with pytest.raises(InvalidArgument, match=f"unknown option {option} of storage driver {driver}"):
        choose_driver(tmp_path, driver, {option: "x"})


def test_the_survey_names_every_driver_and_leaves_nothing(tmp_path: Path) -> None:
    reports = {report.name: report for report in survey(tmp_path / "not/yet/there")}
    assert list(reports) == ["overlay2", "vfs", "aufs", "btrfs", "devicemapper", "zfs"]
    assert reports["vfs"].usable
    assert not reports["btrfs"].usable
    assert "put the data root on btrfs" in reports["btrfs"].remedy
    assert not reports["zfs"].usable
    assert "modprobe zfs" in reports["zfs"].remedy or "put the data root on zfs" in reports["zfs"].remedy
    if not reports["devicemapper"].usable:
        assert reports["devicemapper"].reason in {
            "device-mapper is not in this kernel",
            "the device-mapper is for root only",
        }
        assert reports["devicemapper"].remedy
    assert reports["aufs"].usable == ("by " in reports["aufs"].reason)
    assert reports["aufs"].usable or reports["aufs"].remedy
    assert os.listdir(tmp_path) == []


@pytest.mark.root
class TestWithMounts:
    def test_overlay2_is_the_first_choice_and_stays_it(self, tmp_path: Path) -> None:
        assert choose_driver(tmp_path, None, {}).name == "overlay2"
        assert prior_drivers(tmp_path) == ["overlay2"]
        assert choose_driver(tmp_path, None, {}).name == "overlay2"

    def test_over_an_overlay_vfs_is_chosen_and_the_survey_says_why(self, tmp_path: Path) -> None:
        for name in ("low", "up", "work", "root"):
            (tmp_path / name).mkdir()
        place = tmp_path / "root"
        mount(Mount("overlay", "overlay", place, data="lowerdir=low,upperdir=up,workdir=work", cwd=tmp_path))
        try:
            overlay2 = survey(place)[0]
            chosen = choose_driver(place, None, {}).name
        finally:
            unmount(place)
        assert not overlay2.usable
        assert "overlay2 cannot keep its layers on overlayfs" in overlay2.reason
        assert overlay2.remedy == "put the data root on ext4, xfs or btrfs"
        assert chosen == "vfs"
