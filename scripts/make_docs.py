"""Write the pages of the documentation that the code itself knows best.

    scripts/make_docs.py errors api            print docs/errors.md and docs/api.md
    scripts/make_docs.py errors api --write    write them
    scripts/make_docs.py drivers --from build/test-results --write    docs/drivers.md, from the results of make test

A house test fails when a page is not what this prints; docs/drivers.md must have the cases of today.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import drivers_page

import lamina
from lamina import errors
from lamina.api.errors import status_of
from lamina.api.routes import unserved
from lamina.api.routes.table import ROWS
from lamina.api.routing import Route
from lamina.cli import exit_codes
from lamina.errors import LaminaError
from lamina.registry.errors import Refused, code_of
from lamina.wire.engine.versions import NEWEST, OLDEST

DOCS = Path(__file__).parent.parent / "docs"

_HEAD = """\
# Errors

Made by `scripts/make_docs.py errors --write`; do not edit. Every class of `lamina.errors`, subclasses indented, and
what becomes of it at the three edges:

- *HTTP*: the status of the Engine API (`api/errors.py`), with the body `{"message": "…"}`.
- *exit of run*: the exit code of `lamina run` (`cli/exit_codes.py`); `exec` has the same 126 and 127. Every other failure
  of a command is a 1. The client knows the daemon's errors by their words alone, as Docker's does: 127 and 126 are
  decided by texts such as "executable file not found" and "permission denied", wherever they stand.
- *registry*: status and code of the embedded registry (`registry/errors.py`).

A class without a row of its own in those tables gets what its nearest ancestor gets.

| error | HTTP | exit of run | registry | meaning |
| --- | --- | --- | --- | --- |
"""

_LOCAL = """
## Errors of one module

Raised by one part for itself; they are treated as what they are derived from, unless the edge knows them.

| error | derived from | module | HTTP | meaning |
| --- | --- | --- | --- | --- |
"""


_API = """\
# The Engine API

Made by `scripts/make_docs.py api --write` from the route table (`api/routes/table.py`); do not edit. Versions {oldest} to
{newest} are negotiated as Docker does it, with and without the version in the path. *since*: the first version that has
the operation. What is not served answers 501 with its name; so do fields of a request that would have to be ignored
([decision 14](adr/0014-501-rather-than-pretend.md)).

## Served

| operation | | path | since |
| --- | --- | --- | --- |
"""


def instance(cls: type[LaminaError]) -> LaminaError:
    """Any error of this class: the edges look at classes, not at messages."""
    if issubclass(cls, errors.ProgramFailed):
        return cls(("program",), 1, "")
    return cls("message")


def meaning(cls: type[Exception]) -> str:
    return (cls.__doc__ or "").strip().split("\n")[0]


def tree(cls: type[LaminaError], depth: int = 0) -> Iterator[tuple[type[LaminaError], int]]:
    """The classes of `lamina.errors`, in the order of that file."""
    yield cls, depth
    for below in cls.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from tree(below, depth + 1)


def errors_page() -> str:
    rows = []
    for cls, depth in tree(LaminaError):
        error = instance(cls)
        status, code = code_of(error)
        rows.append(
            f"| {'· ' * depth}`{cls.__name__}` | {status_of(error)} | {exit_codes.of_start(error)} "
            f"| {status} {code.name} | {meaning(cls)} |"
        )
    return _HEAD + "\n".join(rows) + "\n" + _LOCAL + "\n".join(local_rows()) + "\n"


def local_rows() -> list[str]:
    """Error classes outside `lamina.errors`, by module."""
    found = []
    for module in pkgutil.walk_packages(lamina.__path__, "lamina."):
        if module.name.endswith("__main__"):
            continue
        for name, cls in sorted(vars(importlib.import_module(module.name)).items()):
            is_own = isinstance(cls, type) and issubclass(cls, Exception) and cls.__module__ == module.name
            if not is_own or module.name == errors.__name__ or name.startswith("_"):
                continue
            status = "its own" if cls is Refused else status_of(cls.__new__(cls))
            place = module.name.removeprefix("lamina.").replace(".", "/") + ".py"
            found.append(f"| `{name}` | `{cls.__base__.__name__}` | `{place}` | {status} | {meaning(cls)} |")
    return found


def api_page() -> str:
    refused = set(unserved.ROWS)
    table = sorted(ROWS, key=lambda row: (row.path, row.method, row.operation))
    lines = [_API.format(oldest=OLDEST, newest=NEWEST).rstrip("\n")]
    lines += [api_row(row) for row in table if row not in refused]
    lines += ["", "## Not served", "", "| operation | | path | since |", "| --- | --- | --- | --- |"]
    lines += [api_row(row) for row in table if row in refused]
    return "\n".join(lines) + "\n"


def api_row(row: Route) -> str:
    return f"| {row.operation} | {row.method} | `{row.path}` | {row.since} |"


PAGES = {"errors": errors_page, "api": api_page}


def main(words: list[str]) -> int:
    if words[:2] == ["drivers", "--from"] and len(words) > 2:
        made = drivers_page.page(Path(words[2]))
        if words[3:] == ["--write"]:
            drivers_page.PAGE.write_text(made)
        else:
            print(made, end="")
        return 0
    names = [word for word in words if not word.startswith("-")]
    if not names or not set(names) <= set(PAGES) or not set(words) - set(names) <= {"--write"}:
        print(__doc__, file=sys.stderr)
        return 2
    for name in names:
        if "--write" in words:
            (DOCS / f"{name}.md").write_text(PAGES[name]())
        else:
            print(PAGES[name](), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
