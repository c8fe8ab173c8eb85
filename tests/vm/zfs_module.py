"""ZFS for Debian's kernel: its modules are built once from Debian's source package, its programs are unpacked beside them.

Nothing of it is installed: the module's package would build itself for whatever kernel it finds on this machine.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.vm import cache, progress
from tests.vm.apt import Apt, debian_version, english, output, unpack
from tests.vm.debian_kernel import Kernel
from tests.vm.failures import VmUnavailable

# perl, not perl-base: without it configure ends with a message about page states
BUILD_PACKAGES = ("gcc", "make", "libc6-dev", "file", "perl", "xz-utils", "binutils")
# In the order of loading. Newer releases have all but spl inside zfs.
MODULES = ("spl", "znvpair", "zcommon", "icp", "zavl", "zunicode", "zlua", "zzstd", "zfs")
_LIBRARIES = re.compile(r"^(libnvpair|libuutil|libzfs|libzpool)\d+(linux)?$")
_ARC_BYTES = 192 << 20


def built(kernel: Kernel) -> Path:
    """The directory with `modules` and `usr` for this kernel; building it takes three to five minutes, once."""
    release = cache.root() / f"debian-{debian_version()}"
    contrib = _contrib(cache.kept(release / "contrib", _fetch_lists))
    version = contrib.version("zfs-dkms")
    if version is None:
        raise VmUnavailable("Debian's lists have no package zfs-dkms")

    def make(stage: Path) -> None:
        with tempfile.TemporaryDirectory(dir=stage) as temporary:
            _build(kernel, contrib, Path(temporary), stage)

    return cache.kept(release / f"zfs-{kernel.release}-{version}", make)


def ready(kernel: Kernel) -> Path | None:
    """What was built for this kernel before; None when nothing was."""
    return max((cache.root() / f"debian-{debian_version()}").glob(f"zfs-{kernel.release}-*"), default=None)


def prelude(kernel: Kernel) -> str:
    """What the machine does before its command to have ZFS: programs and libraries under their own names, modules."""
    place = ready(kernel) or built(kernel)
    quoted = shlex.quote(os.fspath(place))
    lines = [f"mkdir -p /etc/zfs; cp -as {quoted}/usr / || say failed linking the programs of zfs"]
    for name in MODULES:
        if (place / "modules" / f"{name}.ko").exists():
            limit = f" zfs_arc_max={_ARC_BYTES}" if name == "zfs" else ""
            lines.append(f"insmod {quoted}/modules/{name}.ko{limit} || say failed loading {name}")
    return "\n".join(lines) + "\n"


def _fetch_lists(stage: Path) -> None:
    """Lists of Debian's component contrib, which a machine need not have, from the mirror that it uses for main."""
    keys = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    for name in ("sources", "lists/partial", "archives/partial"):
        (stage / name).mkdir(parents=True)
    text = f"Types: deb\nURIs: {_mirror()}\nSuites: {_codename()}\nComponents: contrib\n"
    (stage / "sources" / "contrib.sources").write_text(text + (f"Signed-By: {keys}\n" if keys.exists() else ""))
    _contrib(stage).update()


def _contrib(place: Path) -> Apt:
    return Apt(
        [
            "-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={place / 'sources'}",
            "-o", f"Dir::State::Lists={place / 'lists'}", "-o", f"Dir::Cache::archives={place / 'archives'}",
            "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
        ]
    )  # fmt: skip


def _codename() -> str:
    found = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if not found:
        raise VmUnavailable("this Debian release has no name yet")
    return found[1]


def _mirror() -> str:
    """Where this machine has its main packages from."""
    shown = output(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"
    )
    for line in shown.splitlines():
        uri, *suite = line.split()
        if suite == [_codename(), "main"]:
            return uri
    raise VmUnavailable(f"apt's sources name no mirror of {_codename()} main")


def _build(kernel: Kernel, contrib: Apt, work: Path, into: Path) -> None:
    with progress.step("zfs: packages"):
        headers = f"linux-headers-{kernel.release}"
        if Apt().version(headers) is None:
            Apt().update()
        Apt().install([headers, *BUILD_PACKAGES])
        libraries = [name for name in contrib.candidates("zfsutils-linux") if _LIBRARIES.match(name)]
        needed = {name for package in ["zfsutils-linux", *libraries] for name in contrib.candidates(package)}
        libraries_of_main = [name for name in needed if name.startswith("lib") and not _LIBRARIES.match(name)]
        Apt().install(sorted(name for name in libraries_of_main if Apt().version(name)))
        source, *programs = contrib.download(["zfs-dkms", "zfsutils-linux", *libraries], work / "packages")
        unpack(source, work / "source")
        for package in programs:
            unpack(package, into)
    _merge_usr(into)
    shutil.rmtree(into / "etc", ignore_errors=True)
    tree = next((work / "source" / "usr" / "src").glob("zfs-*"))
    _compile(kernel, tree, work / "log")
    (into / "modules").mkdir()
    for module in (tree / "module").rglob("*.ko"):
        if module.stem in MODULES:
            output("strip", "-g", "-o", into / "modules" / module.name, module)


def _compile(kernel: Kernel, tree: Path, log: Path) -> None:
    headers = Path(f"/usr/src/linux-headers-{kernel.release}")
    common = Path(f"/usr/src/linux-headers-{kernel.release.removesuffix('-amd64')}-common")
    # Without debug information it is a fifth faster, but headers with types of their own (Debian 13) insist on it.
    environment = {**english(), **({} if (headers / "vmlinux").exists() else {"KCFLAGS": "-g0"})}
    with progress.step("zfs: configure (1 of 2, about 90 s)"):
        configure = ["./configure", "-q", "--prefix=/usr", "--with-config=kernel"]
        _logged([*configure, f"--with-linux={common}", f"--with-linux-obj={headers}"], tree, log, environment)
    with progress.step("zfs: make (2 of 2, about 120 s)"):
        _logged(["make", "-s", "-C", "module", f"-j{os.cpu_count()}"], tree, log, environment)


def _logged(words: Sequence[str], directory: Path, log: Path, environment: dict[str, str]) -> None:
    with log.open("w") as file:
        done = subprocess.run(
            words, cwd=directory, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, check=False
        )
    if done.returncode != 0:
        said = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise VmUnavailable(f"zfs: {words[0]} ended with {done.returncode}:\n{said}")


def _merge_usr(root: Path) -> None:
    """What packages still put in /lib and /sbin goes where those names lead."""
    for name in ("bin", "sbin", "lib"):
        if (root / name).is_dir():
            shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(root / name)
