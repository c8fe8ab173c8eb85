"""Projects of directories, on an xfs of our own; what counts them is tried where a kernel has quotas."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.errors import Unsupported
from lamina.ids import CacheId
from lamina.kernel.quota import make_device_node, project_of, require_quotas, set_project
from lamina.storage.mounting import Mounts
from lamina.storage.overlay2.driver import Overlay2
from tests.conformance.grounds import MountRefusedError, image_file
from tests.conformance.trees import BASE, MakeDir, Remove, Rename, Write, apply_edits

pytestmark = pytest.mark.root


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    try:
        with image_file(tmp_path / "x", ("mkfs.xfs", "-q"), size_bytes=400 << 20) as found:
            yield found
    except MountRefusedError as error:
        pytest.skip(f"xfs cannot be mounted here: {error}")


def test_what_is_made_in_a_directory_belongs_to_its_project(xfs: Path) -> None:
    (xfs / "d").mkdir()
    assert project_of(xfs / "d") == 0
    set_project(xfs / "d", 4_000_000_000)
    (xfs / "d/inner").mkdir()
    (xfs / "other").mkdir()
    assert [project_of(xfs / name) for name in ("d", "d/inner", "other")] == [4_000_000_000, 4_000_000_000, 0]
    set_project(xfs / "d", 7)
    assert project_of(xfs / "d") == 7


def test_a_file_system_without_quotas_is_refused_with_what_would_help(xfs: Path) -> None:
    device = make_device_node(xfs)
    assert make_device_node(xfs) == device
    assert device.stat().st_rdev == xfs.stat().st_dev
    with pytest.raises(Unsupported) as told:
        require_quotas(device, 1, xfs)
    assert "pquota" in told.value.hint


def test_an_overlay_layer_in_a_project_works_like_any_other(xfs: Path) -> None:
    """Own changes and work directory must be in the same project: a rename between two would give EXDEV."""
    driver = Overlay2(xfs / "root")
    driver.create(CacheId("base"), None)
    apply_edits(driver.upper(CacheId("base")), BASE)
    driver.seal(CacheId("base"), durable=False)
    driver.create(CacheId("rw"), CacheId("base"))
    home = xfs / "root/overlay2/rw"
    for directory in (home, home / "diff", home / "work"):
        set_project(directory, 3)
    edits = (Rename("a file", "etc/moved"), Rename("etc/mtab", "mtab"), Remove("etc/hosts"), MakeDir("d"), Write("d/f"))
    with Mounts(driver).mounted(CacheId("rw")) as tree:
        apply_edits(tree, edits)
        assert sorted(os.listdir(tree)) == ["a subdir", "d", "etc", "mtab"]
    assert project_of(home / "diff/d") == project_of(home / "diff/etc") == 3
    driver.remove(CacheId("rw"))
