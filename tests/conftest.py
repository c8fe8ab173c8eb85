"""What every test may ask for, and the rule that no test is skipped silently."""

from __future__ import annotations

import os
import platform
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from lamina.kernel import libc

# A busy machine draws slowly; that is no fault of a test. CI draws the same examples every time, people new ones.
settings.register_profile(
    "lamina", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("lamina")

HERE = Path(__file__).parent
# The driver that the virtual machine around us is for, if there is one.
GUEST = os.environ.get("LAMINA_VM_GUEST", "")
EXPECTED_SKIPS = [
    row
    for row in tomllib.loads((HERE / "expected_skips.toml").read_text())["skip"]
    if not (GUEST and row.get("where") == "host")
]


@pytest.fixture(scope="module", autouse=True)
def no_foster_parent() -> Iterator[None]:
    """Stop adopting orphans at the end of a module whose tests ran a container runtime in this process.

    A test run reaps nobody else's children: an orphan of a container that it adopted would stay a zombie, and the kernel
    ends no process namespace before its last zombie is gone.
    """
    yield
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 0)


@pytest.fixture(scope="session", autouse=True)
def which_kernel(record_testsuite_property: Callable[[str, object], None]) -> None:
    """Written into the results: docs/drivers.md says where a case has run."""
    record_testsuite_property("kernel", platform.release())


@pytest.fixture(scope="session")
def shared_images() -> Path:
    """Real published images, kept beside the checkout and not part of it."""
    found = HERE.parent.parent / "shared" / "images"
    if not found.is_dir():
        pytest.skip("shared images are not beside this checkout")
    return found


@pytest.fixture(scope="session")
def engine_api_spec() -> Path:
    """Docker's description of the Engine API, kept beside the checkout and not part of it."""
    found = HERE.parent.parent / "shared" / "spec" / "engine-api-v1.51.yaml"
    if not found.is_file():
        pytest.skip("the Engine API description is not beside this checkout")
    return found


def runs_here(item: pytest.Item, guest: str) -> bool:
    """Tests of the virtual machine run there alone, and when `make test` has made it for a driver, nothing else does.

    `guest` is that driver, "yes" in a machine that somebody made by hand, and nothing outside.
    """
    marker = item.get_closest_marker("vm_guest")
    if guest in {"", "yes"}:
        return marker is None or bool(guest)
    if marker is not None:
        return guest in marker.args
    parameters = (
        item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    )
    return any(getattr(value, "name", None) == guest for value in parameters)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that need root are skipped without it (the reason is listed)."""
    elsewhere = [item for item in items if not runs_here(item, GUEST)]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if runs_here(item, GUEST)]
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root") or item.get_closest_marker("e2e"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    outcome = yield
    report = outcome.get_result()
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(re.search(row["reason"], reason) and re.search(row["test"], item.nodeid) for row in EXPECTED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"skipped without being listed in tests/expected_skips.toml: {reason}"
