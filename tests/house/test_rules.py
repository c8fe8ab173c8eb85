"""The rules of the house that a machine can check. Limits may only become stricter."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "src" / "lamina").rglob("*.py"))
MAX_LINES = 560
MAX_FUNCTION_LINES = 60


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT / "src" / "lamina"))


@pytest.mark.parametrize("path", SOURCES, ids=_relative)
def test_a_file_has_one_subject_and_says_it_first(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the first line says what the file is for"
    assert len(path.read_text().splitlines()) <= MAX_LINES, "past this a file holds two subjects"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, f"{node.name} is too long to read"


def test_processes_start_in_one_place() -> None:
    assert {_relative(p) for p in SOURCES if "subprocess" in _imports(p)} <= {"programs/run.py"}


def test_ctypes_lives_in_the_kernel_package() -> None:
    assert {p.parent.name for p in SOURCES if "ctypes" in _imports(p)} <= {"kernel"}


def test_only_the_edges_read_the_environment() -> None:
    readers = {_relative(p) for p in SOURCES if re.search(r"os\.(environ|getenv)", p.read_text())}
    assert all(name.startswith("cli/") or name in {"daemon/config.py", "programs/run.py"} for name in readers), readers


def test_no_file_is_named_after_nothing() -> None:
    empty_words = {"util", "utils", "helper", "helpers", "manager", "misc", "common", "base", "impl"}
    assert not [p for p in SOURCES if p.stem in empty_words]


def test_archives_are_never_extracted_by_the_standard_library() -> None:
    assert not [p for p in SOURCES if re.search(r"\.extractall\(|\.extract\(", p.read_text())]


def test_nothing_is_swallowed() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                only_pass = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
                assert not only_pass, f"{_relative(path)}:{node.lineno} catches and does nothing"


def test_import_contracts_are_kept() -> None:
    done = subprocess.run(
        [ROOT / ".venv/bin/lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_documents_name_files_that_exist() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name} links to {link}"


_PURE_MAY_NOT = {
    "asyncio",
    "ctypes",
    "fcntl",
    "logging",
    "random",
    "secrets",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "aiohttp",
}


@pytest.mark.parametrize("path", SOURCES, ids=_relative)
def test_a_module_keeps_the_colour_it_claims(path: Path) -> None:
    """`(pure)`, `(blocking)` and `(async)` in a module's first line are promises."""
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
    imports = {name.split(".")[0] for name in _imports(path)}
    if "(pure" in first:
        assert not imports & _PURE_MAY_NOT, f"a pure module imports {imports & _PURE_MAY_NOT}"
    elif "(blocking" in first or "blocking module" in first:
        assert "asyncio" not in imports, "a blocking module knows the event loop"
