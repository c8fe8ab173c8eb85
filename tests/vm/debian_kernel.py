"""Debian's own kernel for the running release, unpacked from its package into the cache."""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from tests.vm import cache, progress
from tests.vm.apt import Apt, architecture, debian_version, output, unpack
from tests.vm.failures import VmUnavailable

_ELF = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One unpacked kernel package. `release` is what `uname -r` says in the machine."""

    release: str
    place: Path

    @property
    def image(self) -> Path:
        """What QEMU boots: the kernel taken out of its compressed image, or that image where it cannot be taken out."""
        plain = self.place / "vmlinux"
        return plain if plain.exists() else self.place / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return self.place / "lib" / "modules" / self.release

    def module_files(self, *names: str) -> list[Path]:
        """The files of these modules and of all they need, in the order of loading."""
        found: list[Path] = []
        for name in names:
            shown = output("modprobe", "-d", self.place, "-S", self.release, "--show-depends", name)
            for line in shown.splitlines():
                file = Path(line.split()[1]) if line.startswith("insmod ") else None
                if file and file not in found:
                    found.append(file)
        return found


def newest() -> Kernel:
    """The kernel that Debian's package lists name today."""
    debian = debian_version()
    if architecture() != "amd64":
        raise VmUnavailable("needs an amd64 machine")
    releases = _named_by_lists() or _named_after_update()
    return _unpacked(debian, max(releases, key=_numbers))


def kernel() -> Kernel:
    """The newest kernel that was unpacked for this release before, else the newest there is."""
    places = [*(cache.root() / f"debian-{debian_version()}").glob("[0-9]*")]
    if not places:
        return newest()
    place = max(places, key=lambda place: _numbers(place.name))
    return Kernel(place.name, place)


def _named_by_lists() -> list[str]:
    named = Apt().candidates("linux-image-amd64") if Apt().version("linux-image-amd64") else []
    return [name.removeprefix("linux-image-") for name in named if re.match(r"linux-image-\d", name)]


def _named_after_update() -> list[str]:
    Apt().update()
    found = _named_by_lists()
    if not found:
        raise VmUnavailable("apt-get knows no package linux-image-amd64")
    return found


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def _unpacked(debian: str, release: str) -> Kernel:
    def make(stage: Path) -> None:
        with progress.step(f"kernel {release}"), tempfile.TemporaryDirectory(dir=stage) as downloads:
            (package,) = Apt().download([f"linux-image-{release}"], Path(downloads))
            unpack(package, stage)
            if not (stage / "lib" / "modules").exists():  # Debian 13 has them in /usr/lib alone
                (stage / "lib").symlink_to("usr/lib")
            output("depmod", "-b", stage, release)
            plain = uncompressed((stage / "boot" / f"vmlinuz-{release}").read_bytes())
            if plain is not None:
                (stage / "vmlinux").write_bytes(plain)
        shutil.rmtree(stage / "usr" / "share", ignore_errors=True)

    return Kernel(release, cache.kept(cache.root() / f"debian-{debian}" / release, make))


def uncompressed(image: bytes) -> bytes | None:
    """The ELF file in a bzImage, None when its compression is not known here.

    It carries a PVH note, so that QEMU enters it directly and the emulated processor need not decompress it.
    Source: the kernel's Documentation/arch/x86/boot.rst, setup_sects and payload_offset.
    """
    setup_sectors = image[0x1F1]
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    try:
        if payload.startswith(b"\xfd7zXZ\x00"):
            plain = lzma.LZMADecompressor().decompress(payload)
        elif payload.startswith(b"\x28\xb5\x2f\xfd"):
            plain = zstd(payload[:-4])  # the build appends the size of the plain file
        elif payload.startswith(b"\x1f\x8b"):
            plain = zlib.decompressobj(wbits=31).decompress(payload)
        else:
            return None
    except (lzma.LZMAError, zlib.error, VmUnavailable):
        return None
    return plain if plain.startswith(_ELF) else None


def zstd(data: bytes) -> bytes:
    try:
        done = subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=False)
    except FileNotFoundError:
        raise VmUnavailable("zstd is not installed") from None
    if done.returncode != 0:
        raise VmUnavailable(f"zstd: {done.stderr.decode().strip()}")
    return done.stdout
