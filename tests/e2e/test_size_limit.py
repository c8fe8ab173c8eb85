"""`docker run --storage-opt size=…` where the file system cannot limit: dockerd's words, and nothing is left."""

from __future__ import annotations

import pytest

from tests.e2e import images
from tests.e2e.engines import Engine

pytestmark = [pytest.mark.root, pytest.mark.e2e]


def test_a_size_that_nothing_can_keep_is_refused(fresh_engine: Engine) -> None:
    engine = fresh_engine.start()
    engine.docker("load", stdin=images.busybox())
    done = engine.docker(
        "run", "--name", "limited", "--storage-opt", "size=20M", "--net", "none", "busybox", check=False
    )
    assert done.returncode == 125
    assert b"--storage-opt is supported only for overlay over xfs with 'pquota' mount option" in done.stderr
    assert engine.out("ps", "-aq") == ""
    assert engine.data_root is not None
    assert list((engine.data_root / "image/overlay2/layerdb/mounts").iterdir()) == []


def test_an_option_for_all_containers_keeps_the_daemon_from_starting(fresh_engine: Engine) -> None:
    fresh_engine.arguments = ("--storage-opt", "overlay2.size=20G")
    with pytest.raises(AssertionError, match="does not support Project Quota"):
        fresh_engine.start()
