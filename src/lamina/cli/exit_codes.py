"""Errors to exit codes, once.

Source: docker/cli cli/command/container/run.go: what a container's own command can return is kept apart from what the
engine says about it.
"""

from __future__ import annotations

from lamina.errors import CommandNotExecutable, CommandNotFound, LaminaError

FAILURE = 1
ENGINE_FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127

_NOT_FOUND_WORDS = ("executable file not found", "no such file or directory", "system cannot find the file specified")
_NOT_EXECUTABLE_WORDS = ("permission denied", "not a directory", "is a directory")


def of(error: LaminaError) -> int:
    """For every command but run, create and exec."""
    del error
    return FAILURE


def of_start(error: LaminaError) -> int:
    """For commands that start a process in a container: the daemon's words say which kind of failure it was."""
    if isinstance(error, CommandNotFound):
        return NOT_FOUND
    if isinstance(error, CommandNotExecutable):
        return NOT_EXECUTABLE
    said = str(error)
    if any(words in said for words in _NOT_FOUND_WORDS):
        return NOT_FOUND
    if any(words in said for words in _NOT_EXECUTABLE_WORDS):
        return NOT_EXECUTABLE
    return ENGINE_FAILED
