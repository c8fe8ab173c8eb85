"""Changes of a run config written as Dockerfile instructions: `commit -c`, `import -c` (pure).

Source: moby builder/dockerfile/builder.go BuildFromConfig, dispatchers.go; which instructions may be used is Docker's
list.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Sequence

from lamina.engine.config_words import expand, split_raw, split_words
from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject, JsonValue, from_strings, mapping, strings, text

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_NS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}
_SHELL = ("/bin/sh", "-c")


def apply_changes(config: JsonObject, changes: Sequence[str]) -> JsonObject:
    """A copy of the run config with the instructions carried out in order.

    Raises:
        InvalidArgument: an instruction that is not allowed here, or wrong arguments.
    """
    applied = _Changes(dict(config))
    for change in changes:
        for line in change.splitlines():
            if line.strip():
                applied.instruction(line.strip())
    return applied.config


class _Changes:
    def __init__(self, config: JsonObject) -> None:
        self.config = config
        self._command_set = False

    def instruction(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        carry_out = self._known().get(word.upper())
        if carry_out is None:
            raise InvalidArgument(f"{word.lower()[:40]} is not a valid change command")
        argument = rest.strip()
        if not argument and word.upper() != "CMD":
            raise InvalidArgument(f"{word.upper()} requires at least one argument")
        carry_out(argument)

    def _known(self) -> dict[str, Callable[[str], None]]:
        return {
            "CMD": self._cmd,
            "ENTRYPOINT": self._entrypoint,
            "ENV": self._env,
            "EXPOSE": self._expose,
            "HEALTHCHECK": self._healthcheck,
            "LABEL": self._label,
            "ONBUILD": self._onbuild,
            "USER": self._user,
            "VOLUME": self._volume,
            "WORKDIR": self._workdir,
        }

    def _variables(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in strings(self.config, "Env"):
            name, _, value = entry.partition("=")
            found[name] = value
        return found

    def _cmd(self, argument: str) -> None:
        self.config["Cmd"] = from_strings(self._command(argument))
        self._command_set = True

    def _entrypoint(self, argument: str) -> None:
        self.config["Entrypoint"] = from_strings(self._command(argument))
        if not self._command_set:
            self.config["Cmd"] = None

    def _command(self, argument: str) -> list[str]:
        listed = _json_list(argument)
        if listed is not None:
            return listed
        shell = strings(self.config, "Shell") or list(_SHELL)
        return [*shell, argument] if argument else []

    def _env(self, argument: str) -> None:
        env = strings(self.config, "Env")
        for name, value in self._pairs("ENV", argument):
            entry = f"{name}={value}"
            at = next((index for index, old in enumerate(env) if old.partition("=")[0] == name), None)
            if at is None:
                env.append(entry)
            else:
                env[at] = entry
        self.config["Env"] = from_strings(env)

    def _label(self, argument: str) -> None:
        labels = dict(mapping(self.config, "Labels"))
        labels.update(self._pairs("LABEL", argument))
        self.config["Labels"] = labels

    def _pairs(self, instruction: str, argument: str) -> list[tuple[str, str]]:
        env = self._variables()
        raw = split_raw(argument)
        if "=" not in raw[0]:
            name, _, value = argument.partition(" ")
            if not value.strip():
                raise InvalidArgument(f"{instruction} must have two arguments")
            return [(expand(name, env), expand(value.strip(), env))]
        found: list[tuple[str, str]] = []
        for word in raw:
            name, equals, value = word.partition("=")
            if not equals:
                raise InvalidArgument(f"Syntax error - can't find = in {word[:100]!r}. Must be of the form: name=value")
            if not name:
                raise InvalidArgument(f"{instruction} names can not be blank")
            found.append((expand(name, env), expand(value, env)))
        return found

    def _expose(self, argument: str) -> None:
        ports = dict(mapping(self.config, "ExposedPorts"))
        for word in split_words(argument, self._variables()):
            match = _PORT.fullmatch(word)
            first = int(match[1]) if match else 0
            last = int(match[2] or first) if match else 0
            if match is None or not 1 <= first <= last <= 65535:
                raise InvalidArgument(f"invalid containerPort: {word[:100]}")
            for port in range(first, last + 1):
                ports[f"{port}/{match[3] or 'tcp'}"] = {}
        self.config["ExposedPorts"] = ports

    def _volume(self, argument: str) -> None:
        listed = _json_list(argument)
        env = self._variables()
        names = [expand(name, env) for name in listed] if listed is not None else split_words(argument, env)
        volumes = dict(mapping(self.config, "Volumes"))
        for name in names:
            if not name.strip():
                raise InvalidArgument("VOLUME specified can not be an empty string")
            volumes[name] = {}
        self.config["Volumes"] = volumes

    def _user(self, argument: str) -> None:
        self.config["User"] = expand(argument, self._variables())

    def _workdir(self, argument: str) -> None:
        wanted = expand(argument, self._variables())
        # posixpath keeps a second slash at the start; a working directory has one.
        joined = posixpath.normpath(posixpath.join("/", text(self.config, "WorkingDir"), wanted))
        self.config["WorkingDir"] = "/" + joined.lstrip("/")

    def _onbuild(self, argument: str) -> None:
        trigger = argument.partition(" ")[0].upper()
        if trigger == "ONBUILD":
            raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
        if trigger in {"MAINTAINER", "FROM"}:
            raise InvalidArgument(f"{trigger} isn't allowed as an ONBUILD trigger")
        self.config["OnBuild"] = from_strings([*strings(self.config, "OnBuild"), argument])

    def _healthcheck(self, argument: str) -> None:
        check: JsonObject = {}
        rest = argument
        while rest.startswith("--"):
            option, _, rest = rest.partition(" ")
            rest = rest.strip()
            _health_option(check, option)
        kind, _, command = rest.partition(" ")
        if kind.upper() == "NONE" and not command.strip() and not check:
            self.config["Healthcheck"] = {"Test": ["NONE"]}
            return
        if kind.upper() != "CMD" or not command.strip():
            raise InvalidArgument("HEALTHCHECK needs NONE, or CMD and a command")
        listed = _json_list(command.strip())
        test = ["CMD", *listed] if listed is not None else ["CMD-SHELL", command.strip()]
        self.config["Healthcheck"] = {"Test": from_strings(test), **check}


_HEALTH_OPTIONS = {
    "--interval": "Interval",
    "--timeout": "Timeout",
    "--start-period": "StartPeriod",
    "--start-interval": "StartInterval",
}


def _health_option(check: JsonObject, option: str) -> None:
    name, _, value = option.partition("=")
    if name == "--retries" and value.isdigit():
        check["Retries"] = int(value)
        return
    parts = _DURATION.findall(value)
    if name not in _HEALTH_OPTIONS or "".join(number + unit for number, unit in parts) != value or not parts:
        raise InvalidArgument(f"invalid HEALTHCHECK option {option[:100]!r}")
    check[_HEALTH_OPTIONS[name]] = int(sum(float(number) * _NS[unit] for number, unit in parts))


def _json_list(argument: str) -> list[str] | None:
    """The exec form; None when it is none, and then it counts as shell form, as in Docker."""
    if not argument.startswith("["):
        return None
    try:
        found: JsonValue = json.loads(argument)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    words = [item for item in found if isinstance(item, str)]
    return words if len(words) == len(found) else None
