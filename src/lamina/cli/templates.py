"""Go-like templates, as `--format` takes them: fields, pipes, a few functions, if, with and range (pure).

Source: text/template of Go, and the functions that docker adds (json, join, split, title, lower, upper, pad, truncate,
println, table). What is not known is an error that names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamina.errors import InvalidArgument

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`|\(|\)|\||[^\s()|"`]+')
_PIECE = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Value:
    pipeline: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _If:
    pipeline: tuple[str, ...]
    then: tuple[Any, ...]
    otherwise: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _With:
    pipeline: tuple[str, ...]
    then: tuple[Any, ...]
    otherwise: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Range:
    pipeline: tuple[str, ...]
    names: tuple[str, ...]
    body: tuple[Any, ...]
    otherwise: tuple[Any, ...]


class Template:
    """A parsed template; `render` it with any number of values."""

    def __init__(self, source: str) -> None:
        """Raises InvalidArgument when it is no template."""
        self._pieces = list(_pieces(source))
        self._at = 0
        self._nodes, stop = self._block()
        if stop:
            raise InvalidArgument(f"template parsing error: unexpected {{{{{stop}}}}}")

    def render(self, value: Any) -> str:
        """The text for one value (dictionaries, lists, strings, numbers, None).

        Raises:
            InvalidArgument: a field or function that is not there.
        """
        return "".join(_render(self._nodes, value, {"$": value}))

    def _block(self) -> tuple[tuple[Any, ...], str]:
        """Nodes up to `end` or `else`, and which of them stopped it."""
        nodes: list[Any] = []
        while self._at < len(self._pieces):
            kind, content = self._pieces[self._at]
            self._at += 1
            if kind == "text":
                nodes.append(_Text(content))
                continue
            tokens = tuple(_TOKEN.findall(content))
            match tokens:
                case () | ("/*", *_):
                    continue
                case ("end" | "else", *_):
                    return tuple(nodes), tokens[0]
                case ("if", *rest):
                    then, stop = self._block()
                    otherwise = self._else(stop)
                    nodes.append(_If(tuple(rest), then, otherwise))
                case ("with", *rest):
                    then, stop = self._block()
                    nodes.append(_With(tuple(rest), then, self._else(stop)))
                case ("range", *rest):
                    names, pipeline = _range_names(rest)
                    body, stop = self._block()
                    nodes.append(_Range(pipeline, names, body, self._else(stop)))
                case _:
                    nodes.append(_Value(tokens))
        return tuple(nodes), ""

    def _else(self, stop: str) -> tuple[Any, ...]:
        if stop == "end":
            return ()
        if stop == "else":
            nodes, last = self._block()
            if last == "end":
                return nodes
        raise InvalidArgument("template parsing error: unexpected EOF")


def _pieces(source: str) -> Sequence[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    trim = False
    for match in _PIECE.finditer(source):
        text = source[at : match.start()]
        found.append(("text", _trimmed(text, left=trim, right=bool(match[1]))))
        found.append(("action", match[2]))
        at, trim = match.end(), bool(match[3])
    tail = source[at:]
    if "{{" in tail:
        raise InvalidArgument("template parsing error: unclosed action")
    found.append(("text", _trimmed(tail, left=trim, right=False)))
    return found


def _trimmed(text: str, *, left: bool, right: bool) -> str:
    text = text.lstrip() if left else text
    return text.rstrip() if right else text


def _range_names(tokens: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if ":=" not in tokens:
        return (), tuple(tokens)
    at = list(tokens).index(":=")
    return tuple(name.strip(",") for name in tokens[:at] if name != ","), tuple(tokens[at + 1 :])


def _render(nodes: Sequence[Any], dot: Any, names: Mapping[str, Any]) -> list[str]:
    out: list[str] = []
    for node in nodes:
        match node:
            case _Text(text):
                out.append(text)
            case _Value(pipeline):
                out.append(show(_evaluate(pipeline, dot, names)))
            case _If(pipeline, then, otherwise):
                out += _render(then if _true(_evaluate(pipeline, dot, names)) else otherwise, dot, names)
            case _With(pipeline, then, otherwise):
                value = _evaluate(pipeline, dot, names)
                out += _render(then, value, names) if _true(value) else _render(otherwise, dot, names)
            case _Range(pipeline, keys, body, otherwise):
                pairs = _pairs(_evaluate(pipeline, dot, names))
                for key, item in pairs:
                    bound = dict(zip(keys, (key, item) if len(keys) > 1 else (item,), strict=False))
                    out += _render(body, item, {**names, **bound})
                if not pairs:
                    out += _render(otherwise, dot, names)
    return out


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return sorted(value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(enumerate(value))
    return []


def _evaluate(tokens: Sequence[str], dot: Any, names: Mapping[str, Any]) -> Any:
    """A pipeline: commands between `|`, each given the result of the one before as its last argument."""
    value: Any = None
    first = True
    for command in _split(tokens):
        given = [] if first else [value]
        value = _command(command, dot, names, given)
        first = False
    return value


def _split(tokens: Sequence[str]) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    depth = 0
    for word in tokens:
        depth += {"(": 1, ")": -1}.get(word, 0)
        if word == "|" and depth == 0:
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def _command(tokens: Sequence[str], dot: Any, names: Mapping[str, Any], given: list[Any]) -> Any:
    if not tokens:
        raise InvalidArgument("template parsing error: missing value for command")
    arguments: list[Any] = []
    at = 1 if _is_function(tokens[0]) else 0
    while at < len(tokens):
        if tokens[at] == "(":
            end = _closing(tokens, at)
            found = _evaluate(tokens[at + 1 : end], dot, names)
            at = end + 1
            if at < len(tokens) and tokens[at].startswith("."):
                found = _field(found, tokens[at])
                at += 1
            arguments.append(found)
            continue
        arguments.append(_operand(tokens[at], dot, names))
        at += 1
    if _is_function(tokens[0]):
        return _call(tokens[0], [*arguments, *given])
    if callable(arguments[0]) and len(arguments) == 2:
        return arguments[0](arguments[1])  # a method, such as .Label "name"
    return arguments[0]


def _closing(tokens: Sequence[str], at: int) -> int:
    depth = 0
    for index in range(at, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[index], 0)
        if depth == 0:
            return index
    raise InvalidArgument("template parsing error: unclosed left paren")


def _is_function(token: str) -> bool:
    return token[0].isalpha() and token not in {"true", "false", "nil"}


def _operand(token: str, dot: Any, names: Mapping[str, Any]) -> Any:
    if token.startswith('"'):
        return json.loads(token)
    if token.startswith("`"):
        return token[1:-1]
    if token in {"true", "false", "nil"}:
        return {"true": True, "false": False, "nil": None}[token]
    if token.startswith("$"):
        name, period, rest = token.partition(".")
        if name not in names:
            raise InvalidArgument(f"template parsing error: undefined variable {name!r}")
        return _field(names[name], period + rest) if rest else names[name]
    if token.startswith("."):
        return _field(dot, token)
    try:
        return float(token) if "." in token else int(token)
    except ValueError:
        raise InvalidArgument(f"template parsing error: unexpected {token!r}") from None


def _field(value: Any, path: str) -> Any:
    for name in path.split("."):
        if not name:
            continue
        if isinstance(value, Mapping):
            if name not in value and not name[:1].isupper():
                return None  # a key of a map: fields of Docker's objects begin with a capital
            if name not in value:
                raise InvalidArgument(f"template: can't evaluate field {name}: there is no such field here")
            value = value[name]
        elif value is None:
            return None
        else:
            raise InvalidArgument(f"template: can't evaluate field {name} in a {type(value).__name__}")
    return value


def _true(value: Any) -> bool:
    return bool(value)


def show(value: Any) -> str:
    """A value as Go prints it with %v."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{show(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + " ".join(show(item) for item in value) + "]"
    return str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "")
        else:
            try:
                value = value[key]
            except (IndexError, TypeError):
                raise InvalidArgument(f"template: error calling index: no element {key!r}") from None
    return value


def _json(value: Any) -> str:
    plain = {k: v for k, v in value.items() if not callable(v)} if isinstance(value, Mapping) else value
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False)


def _join(items: Any, separator: str) -> str:
    return separator.join(show(item) for item in items or ())


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "json": _json,
    "join": _join,
    "split": lambda text, separator: text.split(separator),
    "title": lambda text: str(text).title(),
    "lower": lambda text: str(text).lower(),
    "upper": lambda text: str(text).upper(),
    "len": len,
    "index": _index,
    "print": lambda *items: "".join(show(item) for item in items),
    "println": lambda *items: " ".join(show(item) for item in items) + "\n",
    "printf": lambda form, *items: re.sub(r"%[vsdq]", "%s", form) % tuple(show(item) for item in items),
    "truncate": lambda text, length: str(text)[:length],
    "pad": lambda text, before, after: " " * before + str(text) + " " * after,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, other: first != other,
    "lt": lambda first, other: first < other,
    "le": lambda first, other: first <= other,
    "gt": lambda first, other: first > other,
    "ge": lambda first, other: first >= other,
    "and": lambda *items: next((item for item in items if not _true(item)), items[-1]),
    "or": lambda *items: next((item for item in items if _true(item)), items[-1]),
    "not": lambda item: not _true(item),
}


def _call(name: str, arguments: list[Any]) -> Any:
    function = _FUNCTIONS.get(name)
    if function is None:
        raise InvalidArgument(f'template parsing error: function "{name}" not defined')
    try:
        return function(*arguments)
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidArgument(f"template: error calling {name}: {error}") from error


def unescape(source: str) -> str:
    r"""`\t` and `\n` as a shell hands them over, as docker reads them."""
    return source.replace("\\t", "\t").replace("\\n", "\n")
