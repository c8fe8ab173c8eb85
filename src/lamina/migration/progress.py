"""How a migration tells what it is doing (blocking: called from several threads)."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Who watches. `name` is the short chain id of a layer or the name of a container."""

    def begin(self, name: str, total_bytes: int) -> None:
        """Something begins to be copied."""

    def advance(self, name: str, done_bytes: int) -> None:
        """So many bytes more of it are copied."""

    def end(self, name: str, outcome: str) -> None:
        """It is there. `outcome` is a word or two."""

    def say(self, text: str) -> None:
        """A line that stands by itself."""


class Silent:
    """Nobody watches."""

    def begin(self, name: str, total_bytes: int) -> None:
        """Nothing."""

    def advance(self, name: str, done_bytes: int) -> None:
        """Nothing."""

    def end(self, name: str, outcome: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""
