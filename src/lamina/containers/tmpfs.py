"""Options of tmpfs mounts, as `--tmpfs` and `--mount type=tmpfs` take them (pure).

Source: moby pkg/mount flags (MergeTmpfsOptions), volume/mounts/linux_parser.go (ConvertTmpfsOptions); tmpfs(5).
"""

from __future__ import annotations

from collections.abc import Sequence

from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject, boolean, integer, mapping

DEFAULT_OPTIONS = ("noexec", "nosuid", "nodev", "rprivate")
_PAIRS = (
    ("exec", "noexec"),
    ("suid", "nosuid"),
    ("dev", "nodev"),
    ("rw", "ro"),
    ("async", "sync"),
    ("atime", "noatime"),
    ("diratime", "nodiratime"),
    ("nomand", "mand"),
    ("relatime", "norelatime"),
    ("strictatime", "nostrictatime"),
)
_OPPOSITE = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}
_PROPAGATION = {"private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"}
_OTHER_FLAGS = {"defaults", "dirsync", "remount", "bind", "rbind"}
_VALUES = {"mode", "uid", "gid", "size", "nr_blocks", "nr_inodes", "mpol"}


def merged_options(text: str) -> tuple[str, ...]:
    """Docker's defaults with the user's comma-separated ones on top: of what excludes each other the last one wins.

    Raises:
        InvalidArgument: an option that tmpfs does not have.
    """
    wanted = [*DEFAULT_OPTIONS, *(option for option in text.split(",") if option)]
    kept: list[str] = []
    decided: set[str] = set()
    for option in reversed(wanted):
        subject = _subject(option)
        if subject not in decided:
            decided.add(subject)
            kept.append(option)
    return tuple(reversed(kept))


def options_of_mount(spec: JsonObject) -> tuple[str, ...]:
    """The same for an API mount of type tmpfs, with its `TmpfsOptions` and `ReadOnly`."""
    wanted = mapping(spec, "TmpfsOptions")
    options: list[str] = []
    if boolean(spec, "ReadOnly"):
        options.append("ro")
    if integer(wanted, "Mode"):
        options.append(f"mode={integer(wanted, 'Mode'):o}")
    if integer(wanted, "SizeBytes"):
        options.append(f"size={integer(wanted, 'SizeBytes')}")
    options += _given_options(wanted)
    return merged_options(",".join(options))


def _given_options(wanted: JsonObject) -> Sequence[str]:
    """`TmpfsOptions.Options` of API 1.46: a list of `[name]` or `[name, value]`."""
    found: list[str] = []
    given = wanted.get("Options") or []
    for entry in given if isinstance(given, list) else []:
        if not isinstance(entry, list) or not all(isinstance(part, str) for part in entry) or len(entry) not in {1, 2}:
            raise InvalidArgument("invalid option array length in TmpfsOptions")
        found.append("=".join(str(part) for part in entry))
    return found


def _subject(option: str) -> str:
    """What an option decides about: later ones about the same replace earlier ones."""
    name, separator, _ = option.partition("=")
    if separator and name in _VALUES:
        return name
    if option in _PROPAGATION:
        return "propagation"
    if option in _OPPOSITE:
        return min(option, _OPPOSITE[option])
    if option in _OTHER_FLAGS:
        return option
    raise InvalidArgument(f'Invalid tmpfs option ["{option[:80]}"]')
