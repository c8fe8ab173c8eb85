"""Whether this host can run overlay2, and what its overlay does (blocking).

Everything is tried in a temporary directory on the file system the layers would be on, because the answer depends on
the kernel, its module parameters and that file system. Nothing stays behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lamina.errors import Unsupported
from lamina.kernel import libc, mounts, xattr
from lamina.rootfs.remove import remove_tree
from lamina.storage.backing import backing_name
from lamina.storage.room import needing_room

_DT_DIR = 4
_NOT_OVER = frozenset({"aufs", "ecryptfs", "nfs", "overlayfs", "zfs"})
"""Source: moby overlay2/overlay.go, Init: file systems whose directories make no usable upper."""
_OVERRIDES = "redirect_dir=off,metacopy=off,"
"""dockerd passes neither and falls back to comparing trees; turned off, renames fail with EXDEV as without them."""
_INDEX_PARAMETER = Path("/sys/module/overlay/parameters/index")


@dataclass(frozen=True, slots=True)
class Features:
    """What overlay does here.

    `index_off`: the kernel knows `index` and must be told to leave it off. `user_xattr`: we are in a user namespace,
    so marks are `user.overlay.*`. `metacopy`: chmod copies only metadata up. `native_diff`: an upper directory holds
    the whole truth about its layer; `native_diff_flaw` says why not. `overrides` are options that turn off what this
    kernel does by default and what would make an upper directory tell only half.
    """

    backing: str
    index_off: bool
    user_xattr: bool
    metacopy: bool
    native_diff: bool
    native_diff_flaw: str = ""
    overrides: str = ""

    @property
    def options(self) -> str:
        """What every mount's option string begins with."""
        return ("index=off," if self.index_off else "") + ("userxattr," if self.user_xattr else "") + self.overrides

    @property
    def opaque_xattr(self) -> str:
        return "user.overlay.opaque" if self.user_xattr else "trusted.overlay.opaque"


def probe(root: Path, *, kernel_defaults: str = "") -> Features:
    """Try overlay below the existing directory `root`.

    `kernel_defaults` are options to try under, as if the module had been loaded so (`redirect_dir=on,`): for tests.

    Raises:
        Unsupported: with the reason, and what would help as the hint.
    """
    backing = backing_name(root)
    if backing in _NOT_OVER:
        raise Unsupported(
            f"overlay2 cannot keep its layers on {backing} ({root})", hint="put the data root on ext4, xfs or btrfs"
        )
    try:
        with needing_room("trying overlay2"), _scratch(root) as place:
            _require_entry_types(place, backing)
            found = _try_overlay(place, backing, kernel_defaults)
            if found.native_diff:
                return found
            corrected = _try_overlay(place, backing, kernel_defaults + _OVERRIDES)
            return corrected if corrected.native_diff else found
    except PermissionError as error:
        raise Unsupported(f"overlay2 may not be tried in {root}: {error.strerror}", hint="run as root") from error


def _try_overlay(root: Path, backing: str, overrides: str) -> Features:
    features = Features(
        backing, _INDEX_PARAMETER.exists(), _in_user_namespace(), metacopy=False, native_diff=False, overrides=overrides
    )
    with _scratch(root) as place:
        flaw, metacopy = _flaw(place, features)
    return replace(features, metacopy=metacopy, native_diff=not flaw, native_diff_flaw=flaw)


def _flaw(place: Path, features: Features) -> tuple[str, bool]:
    """Why an upper directory would not tell everything (empty: it does), and whether metacopy is on."""
    opaque = features.opaque_xattr
    for name in ("low/d", "low/moved", "middle/d", "upper", "work", "merged"):
        (place / name).mkdir(parents=True)
    (place / "low/file").write_bytes(b"x")
    xattr.put(os.fspath(place / "middle/d"), opaque, b"y")
    with _overlay(place, features.options):
        merged, upper = place / "merged", place / "upper"
        (merged / "d/f").write_bytes(b"")  # copies the opaque directory `d` up
        copied_opaque = xattr.get(os.fspath(upper / "d"), opaque) == b"y"
        (merged / "file").chmod(0o600)
        metacopy = xattr.get(os.fspath(upper / "file"), opaque.replace("opaque", "metacopy")) is not None
        redirected = _redirects(merged, upper, opaque.replace("opaque", "redirect"))
    if copied_opaque:
        return "opaque flag erroneously copied up, consider update to kernel 4.8 or later to fix", metacopy
    if redirected:
        return "kernel has CONFIG_OVERLAY_FS_REDIRECT_DIR enabled", metacopy
    return ("kernel copies only metadata up (metacopy=on)" if metacopy else ""), metacopy


def _redirects(merged: Path, upper: Path, mark: str) -> bool:
    """Does renaming a lower directory leave a redirect instead of failing?"""
    try:
        (merged / "moved").rename(merged / "moved2")
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    return xattr.get(os.fspath(upper / "moved2"), mark) is not None


@contextlib.contextmanager
def _overlay(place: Path, options: str) -> Iterator[None]:
    data = f"{options}lowerdir=middle:low,upperdir=upper,workdir=work"
    wanted = mounts.Mount("overlay", "overlay", place / "merged", data=data, cwd=place)
    try:
        mounts.mount(wanted)
    except OSError as error:
        raise Unsupported(f"the kernel does not mount overlay here: {error.strerror}", hint=_remedy(error)) from error
    try:
        yield
    finally:
        mounts.unmount(wanted.target, detach=True)


def _remedy(error: OSError) -> str:
    if error.errno == errno.ENODEV:
        return "load the kernel module: modprobe overlay"
    if error.errno == errno.EPERM:
        return "run as root, or in a user namespace of Linux 5.11 or later"
    return "the kernel log (dmesg) says what overlay did not like; use a data root on ext4, xfs or btrfs"


def _require_entry_types(place: Path, backing: str) -> None:
    """Overlay finds whiteouts by the type in the directory itself; xfs made with ftype=0 does not keep it."""
    (place / "types/d").mkdir(parents=True)
    if libc.entry_types(place / "types").get(b"d") != _DT_DIR:
        raise Unsupported(
            f"overlay2 needs a file system that keeps file types in directories (d_type); this {backing} does not",
            hint="make the file system again with mkfs.xfs -n ftype=1" if backing == "xfs" else "use ext4 or xfs",
        )


@contextlib.contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="lamina-probe-", dir=root))
    try:
        yield place
    finally:
        remove_tree(place)


def _in_user_namespace() -> bool:
    try:
        mapping = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return False
    return mapping != ["0", "0", "4294967295"]
