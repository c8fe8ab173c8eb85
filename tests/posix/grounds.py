"""The file systems that the cases run over: native, the kernel's overlay, our union; with files above and below."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lamina.kernel.mounts import Mount
from lamina.storage.mount_helper import carry_out, take_down

OWN_HARD_LINKS = "a hard link of a read-only branch is copied up alone (index=off)"
OWN_DIRECTORIES = "a directory of a read-only branch is not renamed: EXDEV, for mv(1) to copy (redirect_dir=off)"


@dataclass(frozen=True)
class Ground:
    """One way to run the cases.

    `mounted` shows a directory of read-only files at a place that can be written to. `below`: the cases' own
    preparation is what lies in the read-only branch. `deviations` are cases that cannot hold there, with the reason.
    """

    name: str
    mounted: Callable[[Path, Path], AbstractContextManager[Path]]
    below: bool
    deviations: dict[str, str]


@contextmanager
def native(_lower: Path, place: Path) -> Iterator[Path]:
    place.mkdir()
    yield place


@contextmanager
def overlay(lower: Path, place: Path) -> Iterator[Path]:
    for name in ("upper", "work", "merged"):
        (place / name).mkdir(parents=True)
    data = f"lowerdir={lower},upperdir={place}/upper,workdir={place}/work"
    wanted = Mount("overlay", "overlay", place / "merged", data=data)
    carry_out(wanted)
    try:
        yield place / "merged"
    finally:
        take_down((wanted,))


@contextmanager
def union(lower: Path, place: Path, more: str = "") -> Iterator[Path]:
    for name in ("upper", "merged"):
        (place / name).mkdir(parents=True)
    options = f"br:{place}/upper=rw:{lower}=ro+wh{more}"
    helper = (sys.executable, "-P", "-m", "lamina", "unionfs", "-o", options, os.fspath(place / "merged"))
    wanted = Mount("fuse.lamina-unionfs", "none", place / "merged", helper=helper)
    carry_out(wanted)
    try:
        yield place / "merged"
    finally:
        take_down((wanted,))


@contextmanager
def union_without_passthrough(lower: Path, place: Path) -> Iterator[Path]:
    with union(lower, place, ",nopassthrough") as merged:
        yield merged


OVERLAY_ABOVE = {
    "a_device_numbered_0_0_is_a_device": "0:0 is overlay's whiteout",
}
OVERLAY_BELOW = OVERLAY_ABOVE | {
    "hard_links_that_are_there_stay_one_file_after_a_write": OWN_HARD_LINKS,
    "removing_one_hard_link_leaves_the_other": OWN_HARD_LINKS,
    "hard_links_may_lie_in_different_directories": OWN_DIRECTORIES,
    "a_rename_between_two_links_of_one_file_does_nothing": OWN_HARD_LINKS,
    "a_removed_file_that_is_open_for_reading_stays_readable": "the descriptor still counts the name below",
    "a_file_in_a_renamed_directory_stays_the_same_for_who_has_it_open": OWN_DIRECTORIES,
    "an_open_directory_stays_the_same_after_a_rename": OWN_DIRECTORIES,
    "the_parent_of_a_moved_directory_is_the_new_one": OWN_DIRECTORIES,
    "a_directory_is_renamed_with_all_that_is_in_it": OWN_DIRECTORIES,
    "a_renamed_directory_can_be_renamed_back": OWN_DIRECTORIES,
    "a_directory_replaces_an_empty_directory": OWN_DIRECTORIES,
    "two_directories_are_exchanged": OWN_DIRECTORIES,
}
UNION_BELOW = dict.fromkeys(
    (
        "a_file_in_a_renamed_directory_stays_the_same_for_who_has_it_open",
        "an_open_directory_stays_the_same_after_a_rename",
        "hard_links_may_lie_in_different_directories",
        "a_directory_is_renamed_with_all_that_is_in_it",
        "a_renamed_directory_can_be_renamed_back",
        "a_directory_replaces_an_empty_directory",
        "two_directories_are_exchanged",
    ),
    "a directory of a read-only branch is not renamed: EXDEV, as aufs answers, for mv(1) to copy",
) | {
    "a_name_may_have_255_bytes": "a name of more than 251 bytes leaves no room for a whiteout's prefix",
    "removing_one_hard_link_leaves_the_other": "the names in a read-only branch are still counted",
}

GROUNDS = (
    Ground("native", native, below=False, deviations={}),
    Ground("overlay", overlay, below=False, deviations=OVERLAY_ABOVE),
    Ground("overlay-files-below", overlay, below=True, deviations=OVERLAY_BELOW),
    Ground("union", union, below=False, deviations={}),
    Ground("union-files-below", union, below=True, deviations=UNION_BELOW),
    Ground("union-files-below-without-passthrough", union_without_passthrough, below=True, deviations=UNION_BELOW),
)
