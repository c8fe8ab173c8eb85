"""One data root, two engines: what dockerd wrote opens in Lamina, what Lamina wrote opens in dockerd, and back again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.engines import Engine
from tests.e2e.grounds import data_root_for


@pytest.fixture(params=["overlay2", "vfs", "btrfs"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pair(driver: str) -> Iterator[tuple[Engine, Engine]]:
    with data_root_for(driver) as data_root:
        ours = Engine(kind="lamina", storage_driver=driver, data_root=data_root)
        theirs = Engine(kind="dockerd", storage_driver=driver, data_root=ours.data_root)
        try:
            yield ours, theirs
        finally:
            theirs.destroy()
            ours.destroy()


def _fill(engine: Engine, prefix: str) -> dict[str, str]:
    """Images, tags, a commit, stopped containers with edits, a volume; what identifies them."""
    engine.docker("load", stdin=images.busybox())
    engine.docker("load", stdin=images.with_volume())
    engine.docker("tag", "busybox", f"{prefix}/alias:v1")
    edited = engine.out("create", "--name", f"{prefix}-edited", "-e", "MARK=1", "--label", f"by={prefix}", "busybox", "sh", "-c",
                        f"cat /edit 2>/dev/null; echo {prefix} >> /edit; rm -f /etc/group; echo $MARK")  # fmt: skip
    engine.docker("start", "-a", edited)
    engine.docker("commit", "-c", 'CMD ["cat", "/edit"]', edited, f"{prefix}/committed:1")
    engine.docker(
        "run", "--name", f"{prefix}-volume", "-v", f"{prefix}vol:/v", "busybox", "sh", "-c", f"echo {prefix} > /v/file"
    )
    return _identity(engine)


def _identity(engine: Engine) -> dict[str, str]:
    found = {}
    for line in engine.out("images", "-a", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines():
        name, image_id = line.split()
        found[f"image {name}"] = image_id
    for line in engine.out(
        "ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}} {{.Image}} {{.Command}}"
    ).splitlines():
        name, rest = line.split(" ", 1)
        found[f"container {name}"] = rest
    for name in engine.out("volume", "ls", "-q").split():
        found[f"volume {name}"] = json.dumps(json.loads(engine.out("volume", "inspect", name))[0]["Labels"])
    return found


def _use(engine: Engine, prefix: str, times: int) -> None:
    """The containers of the other engine start here, with their writable layers and volumes."""
    out = engine.out("start", "-a", f"{prefix}-edited").splitlines()
    assert out == [prefix] * times + ["1"]
    assert "D /etc/group" in engine.out("diff", f"{prefix}-edited").splitlines()
    assert engine.out("run", "--rm", f"{prefix}/committed:1") == prefix
    assert engine.out("run", "--rm", "-v", f"{prefix}vol:/v", "busybox", "cat", "/v/file") == prefix
    assert engine.out("logs", f"{prefix}-edited").splitlines()[0] == "1"


@pytest.mark.timeout(300)
def test_dockerd_made_it_lamina_opens_it_and_back(pair: tuple[Engine, Engine]) -> None:
    ours, theirs = pair
    theirs.start()
    made = _fill(theirs, "theirs")
    theirs.stop()
    ours.start()
    assert _identity(ours) == made
    _use(ours, "theirs", 1)
    more = _fill(ours, "ours")
    saved = ours.docker("save", "ours/committed:1").stdout
    ours.stop()
    theirs.start()
    assert _identity(theirs) == more
    _use(theirs, "ours", 1)
    _use(theirs, "theirs", 2)
    theirs.docker("load", stdin=saved)
    theirs.stop()
    ours.start()
    assert _identity(ours) == more
    _use(ours, "ours", 2)
    for name in ("ours-edited", "theirs-edited", "ours-volume", "theirs-volume"):
        ours.docker("rm", name)
    ours.docker(
        "rmi", "ours/committed:1", "theirs/committed:1", "ours/alias:v1", "theirs/alias:v1", "with-volume:1", "busybox"
    )
    assert ours.out("images", "-aq") == ""
    root = Path(ours.data_root or "")
    assert not list((root / "image" / ours.storage_driver / "layerdb" / "sha256").iterdir())
