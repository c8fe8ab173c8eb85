"""Words of Dockerfile instructions: quotes, backslashes and variables (pure).

Source: Dockerfile reference, "Environment replacement"; buildkit frontend/dockerfile/shell.
"""

from __future__ import annotations

from collections.abc import Mapping

from lamina.errors import InvalidArgument

_SPACE = " \t\n\r"


def split_words(text: str, env: Mapping[str, str]) -> list[str]:
    """The words of a line, quotes removed and variables replaced; an unset variable is nothing."""
    reader = _Words(text, env)
    found: list[str] = []
    while (word := reader.next_word()) is not None:
        found.append(word)
    return found


def expand(text: str, env: Mapping[str, str]) -> str:
    """The whole text as one word."""
    return _Words(text, env).all()


def split_raw(text: str) -> list[str]:
    """The words of a line with quotes and variables left as they are."""
    found: list[str] = []
    word, quote, escaped = "", "", False
    for char in text:
        if char in _SPACE and not quote and not escaped:
            if word:
                found.append(word)
            word = ""
            continue
        word += char
        if escaped:
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
    return [*found, word] if word else found


class _Words:
    def __init__(self, text: str, env: Mapping[str, str]) -> None:
        self._text = text
        self._at = 0
        self._env = env

    def next_word(self) -> str | None:
        while self._peek() and self._peek() in _SPACE:
            self._at += 1
        return self._word(stop=_SPACE) if self._peek() else None

    def all(self) -> str:
        return self._word(stop="")

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _word(self, *, stop: str) -> str:
        found: list[str] = []
        while (char := self._peek()) and char not in stop:
            self._at += 1
            if char == "'":
                found.append(self._single())
            elif char == '"':
                found.append(self._double())
            elif char == "\\":
                found.append(self._take())
            elif char == "$":
                found.append(self._variable())
            else:
                found.append(char)
        return "".join(found)

    def _single(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise InvalidArgument("unexpected end of statement while looking for matching single-quote")
        found = self._text[self._at : end]
        self._at = end + 1
        return found

    def _double(self) -> str:
        found: list[str] = []
        while char := self._take():
            if char == '"':
                return "".join(found)
            if char == "$":
                found.append(self._variable())
            elif char == "\\" and self._peek() and self._peek() in '"$\\':
                found.append(self._take())
            else:
                found.append(char)
        raise InvalidArgument("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        if self._peek() != "{":
            name = self._name()
            return self._env.get(name, "") if name else "$"
        self._at += 1
        name = self._name()
        operator = ""
        if self._peek() == ":":
            self._at += 1
            operator = self._take()
        word = self._word(stop="}") if operator else ""
        if not name or self._take() != "}" or operator not in {"", "-", "+"}:
            raise InvalidArgument(f"unsupported variable substitution in {self._text[:200]!r}")
        value = self._env.get(name, "")
        if operator == "-":
            return value or word
        if operator == "+":
            return word if value else ""
        return value

    def _name(self) -> str:
        start = self._at
        while (char := self._peek()) and (char == "_" or (char.isascii() and char.isalnum())):
            if self._at == start and char.isdigit():
                break
            self._at += 1
        return self._text[start : self._at]
