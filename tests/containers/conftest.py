"""What tests with a real runtime need."""

from pathlib import Path

import pytest

from lamina.programs import run as programs
from tests.e2e.images import unpack_busybox


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for program in ("conmon", "runc"):
        if programs.installed(program) is None:
            pytest.skip(f"{program} is not installed")
    return unpack_busybox(tmp_path_factory.mktemp("busybox"))
