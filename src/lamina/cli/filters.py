"""`--filter NAME=VALUE`, as the API takes it (pure)."""

from __future__ import annotations

from collections.abc import Sequence

import click


def as_filters(given: Sequence[str]) -> dict[str, list[str]] | None:
    """Values by name; None when there are none.

    Raises:
        click.BadParameter: one without `=`.
    """
    found: dict[str, list[str]] = {}
    for entry in given:
        name, equals, value = entry.partition("=")
        if not equals:
            raise click.BadParameter(
                f'invalid argument "{entry}" for "-f, --filter": filters are NAME=VALUE, such as -f status=exited'
            )
        found.setdefault(name.strip().lower(), []).append(value.strip())
    return found or None
