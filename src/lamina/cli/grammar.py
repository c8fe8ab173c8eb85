"""What docker's grammar has and click's has not: switches that are given a value, as in `--rm=false` (pure)."""

from __future__ import annotations

from collections.abc import Sequence

import click

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def plain_switches(command: click.Command, arguments: Sequence[str]) -> list[str]:
    """The arguments with `--switch=true` as `--switch`, and `--switch=false` as its opposite, or left out.

    Raises:
        click.BadParameter: a value that is neither.
    """
    options = {name: option for option in command.params if isinstance(option, click.Option)
               for name in (*option.opts, *option.secondary_opts)}  # fmt: skip
    mixed = command.context_settings.get("allow_interspersed_args", command.allow_interspersed_args)
    found: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--" or (not _is_option(word) and not mixed):
            return [*found, word, *rest]
        name, equals, value = word.partition("=")
        option = options.get(name)
        if option is not None and option.is_flag and equals:
            found += _switch(option, name, value)
            continue
        found.append(word)
        if rest and _takes_next(options, word):
            found.append(rest.pop(0))
    return found


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


def _switch(option: click.Option, name: str, value: str) -> list[str]:
    if value in _TRUE:
        return [name]
    if value not in _FALSE:
        raise click.BadParameter(f'invalid argument "{value}" for "{name}": true or false')
    others = option.secondary_opts if name in option.opts else option.opts
    return list(others[:1])


def _takes_next(options: dict[str, click.Option], word: str) -> bool:
    """Whether the word after this one is its value: `--name web`, `-e A=B`, or the last letter of `-itw /tmp`."""
    if not _is_option(word):
        return False
    if word.startswith("--"):
        return "=" not in word and word in options and not options[word].is_flag
    for at, letter in enumerate(word[1:], 2):
        option = options.get(f"-{letter}")
        if option is None:
            return False
        if not option.is_flag:
            return at == len(word)
    return False
