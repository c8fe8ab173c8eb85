"""Options of the `local` volume driver: `type`, `o`, `device` (pure).

Source: moby volume/local: `opts.json` beside the volume's data says what to mount there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lamina.errors import InvalidArgument, Unsupported
from lamina.jsonvalue import JsonObject, integer, mapping, text

_KNOWN = ("type", "o", "device", "size")
_FLAGS = {
    "ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "noatime": 0x400, "relatime": 1 << 21,
    "bind": 0x1000, "rbind": 0x1000 | 0x4000,
}  # fmt: skip
"""Words of an option string that mount(2) takes as flags. Source: linux/mount.h."""
_NEUTRAL = {"rw", "suid", "dev", "exec", "atime", "defaults"}


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """What to mount on the volume's data directory."""

    type: str
    device: str
    options: str

    def to_json(self) -> JsonObject:
        return {
            "MountType": self.type,
            "MountOpts": self.options,
            "MountDevice": self.device,
            "Quota": {"Size": 0},
        }

    def mount_arguments(self) -> tuple[str, int, str]:
        """(file system type, MS_* flags, data) for mount(2)."""
        flags, data = 0, []
        for word in filter(None, self.options.split(",")):
            if word in _FLAGS:
                flags |= _FLAGS[word]
            elif word not in _NEUTRAL:
                data.append(word)
        is_bind = bool(flags & _FLAGS["bind"])
        return ("" if is_bind else self.type), flags, "" if is_bind else ",".join(data)


def parse_options(options: Mapping[str, str]) -> LocalOptions | None:
    """What the user asked for; None when that is a plain directory.

    Raises:
        InvalidArgument: an unknown option, or one that needs another.
        Unsupported: a quota, or a file system other than tmpfs and bind mounts.
    """
    for key in options:
        if key not in _KNOWN:
            raise InvalidArgument(f'invalid option: "{key}"')
    if options.get("size"):
        raise Unsupported("quota size requested but no quota support", hint="leave out the option size")
    found = LocalOptions(options.get("type", ""), options.get("device", ""), options.get("o", ""))
    if not (found.type or found.device or found.options):
        return None
    for key, needed in (("type", "device"), ("device", "type"), ("o", "type"), ("o", "device")):
        if options.get(key) and not options.get(needed):
            raise InvalidArgument(f'missing required option: "{needed}"')
    words = found.options.split(",")
    if found.type != "tmpfs" and not {"bind", "rbind"} & set(words):
        raise Unsupported(
            f"local volumes of type {found.type!r} are not supported yet", hint="use type=tmpfs, or type=none,o=bind"
        )
    return found


def decode_options(stored: JsonObject) -> LocalOptions | None:
    """Read `opts.json`; None when everything in it is empty."""
    integer(mapping(stored, "Quota"), "Size")
    found = LocalOptions(text(stored, "MountType"), text(stored, "MountDevice"), text(stored, "MountOpts"))
    return found if found.type or found.device or found.options else None
