"""Pages that the code itself knows best are what the code says now."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conformance.hosts import STORAGE

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "lamina"
_LOCKS = re.compile(r"\b(?:threading\.(?:R?Lock|Condition)|asyncio\.(?:Lock|Semaphore)|fcntl\.flock)\(")


@pytest.mark.parametrize("name", ["errors", "api"])
def test_a_generated_page_is_current(name: str) -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_docs.py", name], capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs" / f"{name}.md").read_text() == made.stdout, f"run scripts/make_docs.py {name} --write"


def test_every_file_with_a_lock_is_on_the_page_of_locks() -> None:
    page = (ROOT / "docs" / "locking.md").read_text()
    named = set(re.findall(r"`([a-z0-9_/]+\.py)`", page))
    locking = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if _LOCKS.search(path.read_text())}
    assert locking - named == set()
    assert {name for name in named if not (SOURCE / name).is_file()} == set()


def test_the_page_of_drivers_has_the_cases_of_today() -> None:
    """Its cells come from a run; which cases and drivers there are, it must not forget."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        drivers_page = importlib.import_module("drivers_page")
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    assert [driver.name for driver in drivers_page.DRIVERS] == [host.name for host in STORAGE]
    listed, today = drivers_page.listed(drivers_page.PAGE.read_text()), drivers_page.suite_cases()
    again = "make test && scripts/make_docs.py drivers --from build/test-results --write"
    assert listed - today == set(), f"no longer in the suite: {again}"
    assert today - listed == set(), f"missing on the page: {again}"
