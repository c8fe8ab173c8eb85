"""What is said to the kernel's aufs. No kernel with aufs can be had for the tests, so the words are compared with Docker's."""

from __future__ import annotations

import sys
from pathlib import Path

from lamina.ids import CacheId
from lamina.kernel import libc
from lamina.storage.aufs.branches import kernel_mounts, union_mount
from lamina.unionfs.options import parse

DIFF = Path("/var/lib/lamina/aufs/diff")
MNT = Path("/var/lib/lamina/aufs/mnt/own")


def branches(count: int) -> list[Path]:
    return [DIFF / f"{number:064x}" for number in range(count)]


class TestKernelAufs:
    def test_a_stack_is_one_mount_with_dockers_options(self) -> None:
        (mount,) = kernel_mounts(DIFF / "own", branches(2), MNT, sealed=False, dirperm1=True, page_bytes=4096)
        zero, one = branches(2)
        assert (mount.fstype, mount.source, mount.target, mount.flags) == ("aufs", "none", MNT, 0)
        assert mount.data == (f"br:{DIFF}/own=rw:{zero}=ro+wh:{one}=ro+wh,dio,xino=/dev/shm/aufs.xino,dirperm1")

    def test_without_dirperm1_it_is_not_asked_for(self) -> None:
        (mount,) = kernel_mounts(DIFF / "own", branches(1), MNT, sealed=False, dirperm1=False, page_bytes=4096)
        assert mount.data.endswith("=ro+wh,dio,xino=/dev/shm/aufs.xino")

    def test_a_sealed_layer_is_mounted_read_only(self) -> None:
        mounts = kernel_mounts(DIFF / "own", branches(60), MNT, sealed=True, dirperm1=True, page_bytes=4096)
        assert mounts[0].data.startswith(f"br:{DIFF}/own=ro+wh:")
        assert [mount.flags & libc.MS_RDONLY for mount in mounts] == [libc.MS_RDONLY] * len(mounts)

    def test_branches_that_do_not_fit_into_a_page_are_appended_by_remounting(self) -> None:
        lowers = branches(126)
        mounts = kernel_mounts(DIFF / "own", lowers, MNT, sealed=False, dirperm1=True, page_bytes=4096)
        assert len(mounts) > 3
        assert all(len(mount.data) < 4096 for mount in mounts)
        assert all(mount.flags == libc.MS_REMOUNT for mount in mounts[1:])
        said = mounts[0].data.partition(",")[0].removeprefix("br:").split(":")
        for mount in mounts[1:]:
            words = mount.data.removesuffix(",").split(",")
            assert all(word.startswith("append:") for word in words)
            said += [word.removeprefix("append:") for word in words]
        assert said == [f"{DIFF}/own=rw", *(f"{lower}=ro+wh" for lower in lowers)]

    def test_a_page_is_used_to_the_byte_that_docker_uses(self) -> None:
        """Docker's room: the page, less 54 and less the length of `,dirperm1`."""
        words = f"br:{DIFF}/own=rw:{branches(1)[0]}=ro+wh"
        for page, mounts in ((len(words) + 54 + 9, 1), (len(words) + 54 + 8, 2)):
            found = kernel_mounts(DIFF / "own", branches(1), MNT, sealed=False, dirperm1=True, page_bytes=page)
            assert len(found) == mounts

    def test_the_links_of_the_mount_are_flushed_before_it_goes(self) -> None:
        mounts = kernel_mounts(DIFF / "own", branches(100), MNT, sealed=False, dirperm1=True, page_bytes=4096)
        assert mounts[0].flush == ("auplink", str(MNT), "flush")
        assert all(mount.flush == () for mount in mounts[1:])


class TestUnionOnFuse:
    def test_branches_are_named_from_the_directory_of_all_changes(self) -> None:
        mount = union_mount(CacheId("own"), [CacheId("b"), CacheId("a")], DIFF, MNT, sealed=False)
        assert mount.cwd == DIFF
        assert mount.helper == (
            sys.executable, "-P", "-m", "lamina", "unionfs", "-o", "fsname=none,takeover,br:own=rw:b=ro+wh:a=ro+wh", str(MNT),
        )  # fmt: skip

    def test_our_union_understands_them(self) -> None:
        lowers = [CacheId(f"{number:064x}") for number in range(400)]
        mount = union_mount(CacheId("own"), lowers, DIFF, MNT, sealed=True)
        options = parse(mount.helper[mount.helper.index("-o") + 1])
        assert [Path(branch.path).name for branch in options.branches] == ["own", *lowers]
        assert not any(branch.writable for branch in options.branches)
        assert all(branch.whiteouts for branch in options.branches)
        assert options.flags & libc.MS_RDONLY

    def test_four_hundred_branches_fit_into_one_argument(self) -> None:
        lowers = [CacheId(f"{number:064x}") for number in range(400)]
        mount = union_mount(CacheId("own"), lowers, DIFF, MNT, sealed=False)
        assert max(len(word) for word in mount.helper) < 131_072  # MAX_ARG_STRLEN
