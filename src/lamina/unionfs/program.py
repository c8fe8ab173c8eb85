"""`lamina unionfs`: reads its words, mounts, tells whoever started it, and serves until the end of the mount.

It does without the client's command line library, which would take longer to load than everything else.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass

from lamina.errors import InvalidArgument, LaminaError
from lamina.kernel import libc
from lamina.unionfs import factory
from lamina.unionfs.mounting import Union, mount
from lamina.unionfs.options import Options, parse

USAGE = """Usage: lamina unionfs -o br:RW=rw:RO=ro+wh:… MOUNTPOINT

  Show several directories as one, as AUFS does: the first takes all changes, those
  below it stay as they are. Unmount it with umount(8).

Options:
  -o OPTIONS      br:…           the branches, from the top: PATH=rw, PATH=ro, PATH=ro+wh
                  append:PATH=ro+wh  one more branch at the bottom
                  ro, nosuid, nodev, noexec, noatime, fsname=NAME, context=…
                  nopassthrough  let no file be read or written by the kernel itself
                  takeover       write to the branch although a process still holds an unmounted union of it
                  threads=N      how many requests are served at once  [default: 4]
                  dirperm1, xino=…, dio and other options of AUFS are taken and mean nothing
  --foreground    Serve in this process instead of one in the background.
  --ready-fd N    Write a line to descriptor N when the mount works, and close it.
  --log FILE      Where to tell of failures.  [default: nowhere; stderr in the foreground]
  --factory FD    Mount nothing yet: serve requests that come over socket FD, each with words as above.
  -h, --help      Show this message and exit.
"""


@dataclass(slots=True)
class _Words:
    options: str = ""
    target: str = ""
    log: str = ""
    ready_fd: int = -1
    foreground: bool = False


def main(words: list[str]) -> int:
    """Run the program; its exit status."""
    if {"-h", "--help"} & set(words):
        sys.stdout.write(USAGE)
        return 0
    try:
        if words[:1] == ["--factory"] and len(words) > 1 and words[1].isdecimal():
            return factory.serve(int(words[1]), _serve_and_tell)
        asked = _read(words)
        options = parse(asked.options)
        return _foreground(asked, options) if asked.foreground else _background(asked, options)
    except LaminaError as error:
        sys.stderr.write(f"lamina: {error}\n" + (f"  {error.hint}\n" if error.hint else ""))
        return 125 if isinstance(error, InvalidArgument) else 1


def _read(words: list[str]) -> _Words:
    found = _Words()
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word == "--foreground":
            found.foreground = True
        elif word in {"-o", "--log", "--ready-fd"} or word.startswith(("--log=", "--ready-fd=")):
            name, equals, value = word.partition("=")
            if not equals:
                if not waiting:
                    raise InvalidArgument(f"{name} needs a value", hint="See 'lamina unionfs --help'.")
                value = waiting.pop(0)
            _set(found, name, value)
        elif word.startswith("-o"):
            _set(found, "-o", word[2:])
        elif word.startswith("-") or found.target:
            raise InvalidArgument(f"unknown word {word!r}", hint="See 'lamina unionfs --help'.")
        else:
            found.target = word
    if not found.target:
        raise InvalidArgument("the mount point is missing", hint="See 'lamina unionfs --help'.")
    return found


def _set(found: _Words, name: str, value: str) -> None:
    if name == "-o":
        found.options = f"{found.options},{value}" if found.options else value
    elif name == "--log":
        found.log = os.path.abspath(value)
    elif value.isdecimal():
        found.ready_fd = int(value)
    else:
        raise InvalidArgument(f"--ready-fd {value!r} is no descriptor")


def _foreground(asked: _Words, options: Options) -> int:
    union = mount(options, asked.target, _logger(asked.log) if asked.log else _complain)
    _serve(asked, union)
    return 0


def _background(asked: _Words, options: Options) -> int:
    """Mount and serve in a child; this process ends when the mount works, or tells why it does not."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            news = pipe.read()
        if news == b"ready\n":
            return 0
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) or 1
    os.close(reading)
    status = 1
    try:
        with contextlib.suppress(PermissionError):
            os.setsid()
        union = mount(options, asked.target, _logger(asked.log))
        _into_background()
        os.write(writing, b"ready\n")
        os.close(writing)
        _serve(asked, union)
        status = 0
    except LaminaError as error:
        sys.stderr.write(f"lamina: {error}\n" + (f"  {error.hint}\n" if error.hint else ""))
        sys.stderr.flush()
        status = 125 if isinstance(error, InvalidArgument) else 1
    finally:
        os._exit(status)


def _serve_and_tell(words: list[str], tell_fd: int) -> int:
    """As a child of the factory: mount, tell over a descriptor how that went, and serve."""
    os.setsid()
    try:
        asked = _read(words)
        union = mount(parse(asked.options), asked.target, _logger(asked.log))
    except LaminaError as error:
        os.write(tell_fd, (f"{error}" + (f"; {error.hint}" if error.hint else "")).encode(errors="replace"))
        return 1
    _into_background()
    os.write(tell_fd, b"ready\n")
    os.close(tell_fd)
    _serve(asked, union)
    return 0


def _serve(asked: _Words, union: Union) -> None:
    _harden(asked.target)
    if asked.ready_fd >= 0:
        with contextlib.suppress(OSError):
            os.write(asked.ready_fd, b"ready\n")
            os.close(asked.ready_fd)
    union.serve()


def _into_background() -> None:
    """Let go of the terminal and of whoever waits for our output to end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.chdir("/")


def _harden(target: str) -> None:
    """Live as long as the mount does: a server that dies takes every file of it along."""
    os.umask(0)
    for name in ("SIGINT", "SIGQUIT", "SIGHUP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGPIPE", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    # A machine that shuts down sends SIGTERM to all: containers still need their files. Unused, the mount ends.
    signal.signal(signal.SIGTERM, lambda _number, _frame: _unmount(target))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("-999")
    with contextlib.suppress(OSError):
        libc.prctl(libc.PR_SET_IO_FLUSHER, 1)
    with contextlib.suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _unmount(target: str) -> None:
    with contextlib.suppress(OSError):
        libc.umount2(target, libc.UMOUNT_NOFOLLOW)


def _complain(text: str) -> None:
    sys.stderr.write(f"lamina unionfs: {text}\n")
    sys.stderr.flush()


class _Log:
    """Lines with their time, appended to a file; nowhere when there is none."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, text: str) -> None:
        if not self._path:
            return
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with contextlib.suppress(OSError), open(self._path, "a", encoding="utf-8") as file:
            file.write(f"{when} {text}\n")


def _logger(path: str) -> _Log:
    return _Log(path)
