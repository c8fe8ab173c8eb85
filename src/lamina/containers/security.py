"""`--security-opt` (pure). Source: moby daemon/daemon_unix.go (parseSecurityOpt)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lamina.errors import InvalidArgument

_TRUTH = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """`seccomp` is empty (the default filter), `unconfined`, `builtin`, or the text of a profile.

    Labels and AppArmor profiles are accepted and have no effect, as in Docker on a host without SELinux or AppArmor.
    """

    seccomp: str = ""
    apparmor: str = ""
    no_new_privileges: bool = False
    writable_cgroups: bool = False

    @classmethod
    def parse(cls, options: Sequence[str]) -> SecurityOptions:
        """Read the list; of one subject the last entry counts.

        Raises:
            InvalidArgument: an unknown subject or value.
        """
        found = cls()
        for option in options:
            found = _with(found, option)
        return found


def _with(found: SecurityOptions, option: str) -> SecurityOptions:
    if option == "no-new-privileges":
        return replace(found, no_new_privileges=True)
    if option == "disable":
        return found
    separator = "=" if "=" in option else ":"
    subject, there, value = option.partition(separator)
    if not there:
        raise InvalidArgument(f'invalid --security-opt 1: "{option[:80]}"')
    if subject == "no-new-privileges":
        return replace(found, no_new_privileges=_truth(option, value))
    if subject == "writable-cgroups":
        return replace(found, writable_cgroups=_truth(option, value))
    if subject == "seccomp":
        return replace(found, seccomp=value)
    if subject == "apparmor":
        return replace(found, apparmor=value)
    if subject == "label":
        return found
    raise InvalidArgument(f'invalid --security-opt 2: "{option[:80]}"')


def _truth(option: str, value: str) -> bool:
    if value.lower() not in _TRUTH:
        raise InvalidArgument(f'invalid --security-opt 2: "{option[:80]}"')
    return _TRUTH[value.lower()]
