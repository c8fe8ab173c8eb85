from __future__ import annotations

import pytest

from lamina.errors import InvalidArgument
from lamina.storage.devicemapper.mountoptions import split_options
from lamina.storage.devicemapper.options import Options, parse_options, parse_size
from lamina.storage.devicemapper.sizes import human

EVERY = {
    "dm.basesize": "20G",
    "dm.loopdatasize": "200G",
    "dm.loopmetadatasize": "4g",
    "dm.fs": "ext4",
    "dm.mkfsarg": "-O ^has_journal",
    "dm.mountopt": "nodiscard,noatime",
    "dm.datadev": "/dev/sdb1",
    "dm.metadatadev": "/dev/sdc1",
    "dm.blocksize": "512K",
    "dm.blkdiscard": "false",
    "dm.override_udev_sync_check": "true",
    "dm.use_deferred_removal": "true",
    "dm.use_deferred_deletion": "true",
    "dm.min_free_space": "15%",
    "dm.xfs_nospace_max_retries": "0",
    "dm.libdm_log_level": "4",
}


def test_nothing_given_is_dockers_defaults() -> None:
    options = parse_options({})
    assert options == Options()
    assert options.discards_blocks
    assert (options.min_free_percent, options.block_sectors) == (10, 128)
    assert (options.deferred_removal, options.deferred_deletion) == (True, True)


def test_every_option_of_docker_is_known() -> None:
    options = parse_options(EVERY)
    assert options.base_size == 20 << 30
    assert options.loop_metadata_size == 4 << 30
    assert options.fstype == "ext4"
    assert options.mkfs_args == ("-O", "^has_journal")
    assert options.mount_options == "nodiscard,noatime"
    assert options.block_sectors == 1024
    assert not options.discards_blocks
    assert options.min_free_percent == 15
    assert options.xfs_nospace_retries == "0"


def test_every_option_of_direct_lvm_is_known() -> None:
    options = parse_options(
        {
            "dm.directlvm_device": "/dev/sdd",
            "dm.directlvm_device_force": "true",
            "dm.thinp_percent": "95",
            "dm.thinp_metapercent": "1",
            "dm.thinp_autoextend_percent": "20",
            "dm.thinp_autoextend_threshold": "80",
        }
    )
    assert options.lvm.device == "/dev/sdd"
    assert (options.lvm.pool_percent, options.lvm.metadata_percent) == (95, 1)
    assert (options.lvm.extend_percent, options.lvm.extend_threshold) == (20, 80)
    assert options.lvm_force


@pytest.mark.parametrize("given", [{"dm.thinpooldev": "p"}, {"dm.datadev": "/dev/sdb"}])
def test_a_real_device_is_not_discarded_unasked(given: dict[str, str]) -> None:
    assert not parse_options(given).discards_blocks
    assert parse_options({**given, "dm.blkdiscard": "true"}).discards_blocks


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("dm.nope", "1", "unknown option dm.nope of storage driver devicemapper"),
        ("size", "1G", "unknown option size"),
        ("dm.basesize", "big", "invalid size"),
        ("dm.basesize", "", "invalid size"),
        ("dm.basesize", "-1G", "invalid size"),
        ("dm.basesize", "0", "more than 0"),
        ("dm.fs", "btrfs", "unsupported file system"),
        ("dm.blkdiscard", "maybe", "neither true nor false"),
        ("dm.blocksize", "4K", "64K to 1G"),
        ("dm.blocksize", "100K", "64K to 1G"),
        ("dm.blocksize", "2G", "64K to 1G"),
        ("dm.min_free_space", "10", "requires a % suffix"),
        ("dm.min_free_space", "100%", "less than 100%"),
        ("dm.min_free_space", "x%", "no whole number"),
        ("dm.xfs_nospace_max_retries", "-1", "no whole number"),
        ("dm.libdm_log_level", "9", "range"),
        ("dm.mkfsarg", "'half", "cannot be taken apart"),
        ("dm.thinp_percent", "100", "at most 99"),
        ("dm.thinp_percent", "50", "need a device"),
    ],
)
def test_a_bad_option_is_refused_by_name(key: str, value: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        parse_options({key: value})
    assert key in caught.value.message or key in caught.value.hint or "dm.thinp" in caught.value.message


def test_deferred_deletion_needs_deferred_removal() -> None:
    with pytest.raises(InvalidArgument, match="needs deferred removal"):
        parse_options({"dm.use_deferred_removal": "false", "dm.use_deferred_deletion": "true"})
    options = parse_options({"dm.use_deferred_removal": "false"})
    assert not options.deferred_deletion


def test_two_ways_to_a_pool_exclude_each_other() -> None:
    with pytest.raises(InvalidArgument, match="exclude each other"):
        parse_options({"dm.thinpooldev": "p", "dm.directlvm_device": "/dev/sdd"})
    with pytest.raises(InvalidArgument, match="exceed 100"):
        parse_options({"dm.directlvm_device": "/dev/sdd", "dm.thinp_percent": "99", "dm.thinp_metapercent": "2"})


@pytest.mark.parametrize(
    ("given", "size"),
    [("1024", 1024), ("10G", 10 << 30), ("1.5g", 3 << 29), ("100MB", 100 << 20), ("512MiB", 512 << 20), ("1k", 1024)],
)
def test_sizes_are_powers_of_1024(given: str, size: int) -> None:
    assert parse_size("k", given) == size


def test_a_size_is_whole_sectors() -> None:
    assert parse_size("k", "1000000") == 999936


@pytest.mark.parametrize(
    ("size", "words"),
    [(65536, "65.54kB"), (10 << 30, "10.74GB"), (107374182400, "107.4GB"), (17383424, "17.38MB"), (0, "0B")],
)
def test_sizes_are_printed_as_docker_does(size: int, words: str) -> None:
    assert human(size) == words


def test_mount_words_become_flags_and_the_rest_is_the_file_systems() -> None:
    assert split_options("nouuid", "noatime,nodiscard,defaults") == (0x400, "nouuid,nodiscard")
    assert split_options("", "ro,rw,nosuid") == (0x2, "")
    assert split_options("", "") == (0, "")
