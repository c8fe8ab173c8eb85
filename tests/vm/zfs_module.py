"""ZFS for Debian's kernel: its module is built once from Debian's source package, its programs are unpacked beside it."""

from __future__ import annotations

from tests.vm.debian_kernel import Kernel
from tests.vm.failures import VmUnavailable


def prelude(kernel: Kernel) -> str:
    """What the machine does before its command, to have ZFS."""
    raise VmUnavailable("to come")
