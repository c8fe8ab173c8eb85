from __future__ import annotations

from pathlib import Path

from lamina.storage.backing import backing_name


def test_a_file_system_without_a_name_here_is_unknown() -> None:
    assert backing_name(Path("/proc")) == "<unknown>"


def test_shared_memory_is_tmpfs() -> None:
    assert backing_name(Path("/dev/shm")) == "tmpfs"
