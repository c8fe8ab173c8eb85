"""Sizes of storage options, and what a file system without project quotas says."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.errors import InvalidArgument, Unsupported
from lamina.ids import CacheId
from lamina.storage.overlay2.driver import Overlay2
from lamina.storage.quota_control import control_of, size_option
from lamina.storage.vfs.driver import Vfs


@pytest.mark.parametrize(
    ("text", "size"),
    [("20G", 20 << 30), ("1.5m", 3 << 19), ("512", 512), ("10 kb", 10 << 10), ("3TiB", 3 << 40), ("0", None)],
)
def test_sizes_are_read_as_docker_reads_them(text: str, size: int | None) -> None:
    assert size_option("overlay2.size", text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1X", "G", "1e5"])
def test_what_is_no_size_is_refused_with_the_options_name(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"overlay2\.size"):
        size_option("overlay2.size", text)


@pytest.mark.root
class TestWithoutQuotas:
    @pytest.fixture(autouse=True)
    def no_quotas(self, tmp_path: Path) -> None:
        if control_of(tmp_path) is not None:
            pytest.skip("the file system of the tests keeps project quotas")

    def test_nothing_is_left_of_the_attempt(self, tmp_path: Path) -> None:
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("driver", "option"), [(Overlay2, "overlay2.size"), (Vfs, "size")])
    def test_a_limit_for_all_layers_is_refused_when_the_driver_is_opened(
        self, tmp_path: Path, driver: type[Overlay2 | Vfs], option: str
    ) -> None:
        with pytest.raises(Unsupported, match="does not support Project Quota"):
            driver(tmp_path, {option: "20G"})

    def test_a_limit_for_one_layer_is_refused_in_dockers_words(self, tmp_path: Path) -> None:
        driver = Overlay2(tmp_path)
        driver.create(CacheId("c"), None)
        with pytest.raises(Unsupported, match="supported only for overlay over xfs with 'pquota' mount option"):
            driver.limit_size(CacheId("c"), 1 << 20)

    @pytest.mark.parametrize("driver", [Overlay2, Vfs])
    def test_an_unknown_option_is_named(self, tmp_path: Path, driver: type[Overlay2 | Vfs]) -> None:
        with pytest.raises(InvalidArgument, match=r"unknown option overlay3\.size of storage driver"):
            driver(tmp_path, {"overlay3.size": "1G"})
