"""An image with more layers than dockerd makes: it runs here, and a dockerd that opens the root is not harmed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.engines import Engine

pytestmark = [pytest.mark.root, pytest.mark.e2e, pytest.mark.timeout(300)]

DEPTH = 200
QUIET = ("--bridge=none", "--iptables=false", "--ip-masq=false")
LOOK = "cat /top /f1 /f150; ls / | grep -c '^f[0-9]'; ls /f2 2>/dev/null; echo done"
SHOWN = f"{DEPTH - 1}\n1\n150\n{DEPTH - 2}\ndone"


def deep_image() -> bytes:
    layers = [images.busybox_layer()]
    for number in range(1, DEPTH):
        entries: list[tuple[str, str, int, bytes | str]] = [("top", "file", 0o644, f"{number}\n")]
        entries.append((f"f{number}", "file", 0o644, f"{number}\n"))
        if number == 20:
            entries.append((".wh.f2", "file", 0o644, ""))
        layers.append(images.layer(entries))
    return images.archive("deep:1", layers, {"Cmd": ["sh"], "Env": ["PATH=/bin"]})


def merged_in(data_root: Path) -> list[str]:
    return [name for name in os.listdir(data_root / "overlay2") if name.endswith("-merged")]


def test_a_deep_image_runs_here_and_in_a_dockerd_on_the_same_root(fresh_engine: Engine) -> None:
    ours = fresh_engine.start()
    ours.docker("load", stdin=deep_image())
    assert ours.out("run", "--name", "one", "--net", "none", "deep:1", "sh", "-c", LOOK) == SHOWN
    assert ours.out("diff", "one") == ""
    ours.docker("run", "--name", "two", "--net", "none", "deep:1", "sh", "-c", "echo x > /f1; rm -f /f3")
    assert sorted(ours.out("diff", "two").splitlines()) == ["C /f1", "D /f3"]
    assert ours.data_root is not None
    assert merged_in(ours.data_root)
    saved = ours.docker("save", "deep:1").stdout
    ours.stop()

    theirs = Engine(kind="dockerd", data_root=ours.data_root, arguments=QUIET)
    try:
        theirs.start()
        assert theirs.out("start", "-a", "one") == SHOWN
        assert theirs.out("run", "--rm", "--net", "none", "deep:1", "sh", "-c", LOOK) == SHOWN
        assert sorted(theirs.out("diff", "two").splitlines()) == ["C /f1", "D /f3"]
        theirs.docker("rm", "one")
    finally:
        theirs.stop()

    ours.start()
    assert ours.out("start", "-a", "two") == ""
    assert len(ours.docker("save", "deep:1").stdout) == len(saved)
    ours.docker("rm", "two")
    ours.docker("rmi", "deep:1")
    assert merged_in(ours.data_root) == []
    assert os.listdir(ours.data_root / "overlay2") == ["l"]
    assert os.listdir(ours.data_root / "overlay2/l") == []
