"""overlay2 inside a user namespace: no trusted attributes there, so the marks are `user.overlay.*`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

INSIDE = """
import io, os, sys, tarfile
from pathlib import Path
from lamina.ids import CacheId
from lamina.layers.store import LayerStore
from lamina.rootfs.remove import remove_tree
from lamina.storage.driver import WhiteoutDialect
from lamina.storage.mounting import Mounts
from lamina.storage.overlay2.driver import Overlay2

root = Path(sys.argv[1])
driver = Overlay2(root)
assert driver.features.user_xattr and driver.features.native_diff, driver.features
assert driver.dialect is WhiteoutDialect.OVERLAY_USERXATTR
assert dict(driver.status())["userxattr"] == "true"
mounts = Mounts(driver)
store = LayerStore(root / "layerdb", driver, mounts)
store.load()

def tar_of(*names):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(info)
    return out.getvalue()

lower, upper = tar_of("d/", "d/old", "gone", "kept"), tar_of(".wh.gone", "d/", "d/.wh..wh..opq", "d/new")
base = store.register(io.BytesIO(lower), None).chain_id
layer = store.register(io.BytesIO(upper), base)
out = io.BytesIO()
store.write_tar(layer.chain_id, out)
assert out.getvalue() == upper
store.create_rw("c", layer.chain_id, prepare=None)
tree = store.mount_rw("c")
assert sorted(os.listdir(tree)) == ["d", "kept"] and os.listdir(tree / "d") == ["new"]
remove_tree(tree / "d")
(tree / "d").mkdir()
(tree / "d/newest").touch()
(tree / "kept").unlink()
store.unmount_rw("c")
print(sorted((change.kind.letter, change.path) for change in store.rw_changes("c")))
committed = store.register_rw("c")
with mounts.mounted(committed.cache_id) as tree:
    assert os.listdir(tree) == ["d"] and os.listdir(tree / "d") == ["newest"]
parent = committed.cache_id
for number in range(130):
    driver.create(CacheId(f"deep-{number}"), parent)
    driver.seal(CacheId(f"deep-{number}"), durable=False)
    parent = CacheId(f"deep-{number}")
with mounts.mounted(parent) as tree:
    assert os.listdir(tree) == ["d"] and os.listdir(tree / "d") == ["newest"]
for number in reversed(range(130)):
    driver.remove(CacheId(f"deep-{number}"))
assert not [name for name in os.listdir(root / "overlay2") if name.endswith("-merged")]
"""


def test_layers_work_with_user_attributes(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", INSIDE, os.fspath(tmp_path / "root")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[('A', '/d/newest'), ('C', '/d'), ('D', '/d/new'), ('D', '/kept')]\n"
