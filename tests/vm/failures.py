"""What can go wrong with the virtual machine itself, as opposed to the command that runs in it."""

from __future__ import annotations


class VmUnavailable(Exception):  # noqa: N818
    """This machine cannot have the virtual machine: a program or a package is missing, and cannot be had."""


class VmFailed(Exception):  # noqa: N818
    """The virtual machine ended without saying how its command ended: a panic, a failed start, or its time limit."""
