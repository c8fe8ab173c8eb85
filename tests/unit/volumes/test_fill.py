"""An image's directory copied into an empty volume."""

import os
from pathlib import Path

import pytest

from lamina.volumes.fill import fill_from_image


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    (root / "data" / "sub").mkdir(parents=True)
    (root / "data" / "sub" / "file").write_text("image")
    (root / "data").chmod(0o1770)
    return root


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    found = tmp_path / "volume"
    found.mkdir()
    return found


def test_the_directory_comes_with_its_mode(rootfs: Path, volume: Path) -> None:
    assert fill_from_image(volume, rootfs, "/data")
    assert (volume / "sub" / "file").read_text() == "image"
    assert volume.stat().st_mode & 0o7777 == 0o1770


def test_a_volume_in_use_is_left_alone(rootfs: Path, volume: Path) -> None:
    (volume / "mine").write_text("mine")
    assert not fill_from_image(volume, rootfs, "/data")
    assert os.listdir(volume) == ["mine"]


def test_an_image_without_the_directory_leaves_the_volume_empty(rootfs: Path, volume: Path) -> None:
    (rootfs / "file").write_text("x")
    assert not fill_from_image(volume, rootfs, "/absent/deep")
    assert not fill_from_image(volume, rootfs, "/file")
    assert os.listdir(volume) == []


@pytest.mark.parametrize("target", ["{secret}", "../../secret", "../../../../../../../../{secret}"])
def test_a_symlink_out_of_the_root_copies_nothing_of_the_host(
    rootfs: Path, volume: Path, tmp_path: Path, target: str
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    (rootfs / "evil").symlink_to(target.format(secret=secret))
    assert not fill_from_image(volume, rootfs, "/evil")
    assert not fill_from_image(volume, rootfs, "/evil/../../secret")
    assert os.listdir(volume) == []


def test_dots_stay_inside_the_root(rootfs: Path, volume: Path) -> None:
    assert fill_from_image(volume, rootfs, "/../../data")
    assert (volume / "sub" / "file").exists()


def test_a_symlink_inside_the_image_is_followed_there(rootfs: Path, volume: Path) -> None:
    (rootfs / "link").symlink_to("/data")
    assert fill_from_image(volume, rootfs, "/link")
    assert (volume / "sub" / "file").exists()
