"""What a container's log options ask for: how its log is cut into parts, and what each line carries (pure).

Source: moby daemon/logger/jsonfilelog/jsonfilelog.go, loggerutils/log_tag.go and loginfo.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lamina.containers.record import Container
from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject, go_json, mapping, string_map, strings, text

_UNITS = {"": 1, "b": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4, "p": 1000**5}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_TRUE, _FALSE = {"1", "t", "T", "TRUE", "true", "True"}, {"0", "f", "F", "FALSE", "false", "False"}


@dataclass(frozen=True, slots=True)
class Rotation:
    """A log's present part is put aside when it has reached `part_bytes` (None: never).

    `parts` counts the present one too; the oldest goes. With `compress`, parts that were put aside are gzipped.
    """

    part_bytes: int | None
    parts: int
    compress: bool


NO_ROTATION = Rotation(None, 1, compress=False)
DEFAULT_ROTATION = Rotation(20_000_000, 5, compress=True)
"""For containers that say nothing: a log must not fill the disk. Docker's `local` driver has the same numbers."""


def rotation(log_config: JsonObject) -> Rotation:
    """The rotation that `HostConfig.LogConfig` asks for.

    Raises:
        InvalidArgument: options that make no sense, with Docker's words.
    """
    options = string_map(log_config, "Config")
    asked = {key: value for key, value in options.items() if key in {"max-size", "max-file", "compress"} and value}
    if not asked:
        return DEFAULT_ROTATION
    part_bytes = _part_bytes(asked.get("max-size"))
    parts = _parts(asked.get("max-file"), DEFAULT_ROTATION.parts if "max-size" not in asked else 1)
    compress = _boolean("compress", asked.get("compress", ""))
    if "max-size" not in asked:
        part_bytes = DEFAULT_ROTATION.part_bytes
    if compress and (parts < 2 or part_bytes is None):
        raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
    return Rotation(part_bytes, parts, compress=compress)


def _part_bytes(size: str | None) -> int | None:
    if size is None or size == "-1":
        return None
    found = _SIZE.fullmatch(size.strip())
    if found is None:
        raise InvalidArgument(f"invalid size: '{size[:80]}'", hint="write max-size as 20m or 500k; -1 means no limit")
    part_bytes = int(float(found[1]) * _UNITS[found[2].lower()])
    if part_bytes <= 0:
        raise InvalidArgument(f"max-size must be a positive number: '{size[:80]}'")
    return part_bytes


def _parts(count: str | None, default: int) -> int:
    if count is None:
        return default
    if not re.fullmatch(r"[+-]?\d{1,9}", count):
        raise InvalidArgument(f"max-file must be a number: '{count[:80]}'")
    if int(count) < 1:
        raise InvalidArgument("max-file cannot be less than 1")
    return int(count)


def _boolean(name: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if not value or value in _FALSE:
        return False
    raise InvalidArgument(f"log option {name} must be true or false: '{value[:80]}'")


def line_attributes(container: Container) -> str:
    """The encoded `attrs` of each line: chosen labels and environment variables, and the tag; empty for none.

    Raises:
        InvalidArgument: a regular expression or a tag that cannot be read.
    """
    options = string_map(mapping(container.host_config, "LogConfig"), "Config")
    if not options:
        return ""
    environment = dict(one.partition("=")[::2] for one in strings(container.config, "Env"))
    found = {
        **_chosen(string_map(container.config, "Labels"), options, "labels"),
        **_chosen(environment, options, "env"),
    }
    if options.get("tag"):
        found["tag"] = _tag(options["tag"], container)
    return go_json({key: found[key] for key in sorted(found)}).decode() if found else ""


def _chosen(values: Mapping[str, str], options: Mapping[str, str], option: str) -> dict[str, str]:
    names = [name.strip() for name in options.get(option, "").split(",") if name.strip()]
    found = {name: values[name] for name in names if name in values}
    pattern = options.get(f"{option}-regex", "")
    if pattern:
        try:
            matches = re.compile(pattern).search
        except re.error as error:
            raise InvalidArgument(f"log option {option}-regex cannot be read: {error}") from error
        found |= {name: value for name, value in values.items() if matches(name)}
    return found


_TAG_FIELDS: Mapping[str, Callable[[Container], str]] = {
    "ID": lambda one: one.id[:12],
    "FullID": lambda one: one.id,
    "Name": lambda one: one.name,
    "ImageID": lambda one: (one.image_id or "").removeprefix("sha256:")[:12],
    "ImageFullID": lambda one: one.image_id or "",
    "ImageName": lambda one: text(one.config, "Image"),
    "DaemonName": lambda _: "lamina",
}


def _tag(template: str, container: Container) -> str:
    def value(found: re.Match[str]) -> str:
        field = _TAG_FIELDS.get(found[1])
        if field is None:
            known = ", ".join(f"{{{{.{name}}}}}" for name in _TAG_FIELDS)
            raise InvalidArgument(f"log option tag has no field {found[0][:80]}", hint=f"known are {known}")
        return field(container)

    return re.sub(r"\{\{\s*\.?([^{}]*?)\s*\}\}", value, template)


def check_log_options(container_config: JsonObject, log_config: JsonObject) -> None:
    """Refuse at create what would fail at start.

    Raises:
        InvalidArgument: with Docker's words where it has any.
    """
    rotation(log_config)
    labels = string_map(container_config, "Labels")
    for option in ("labels", "env"):
        _chosen(labels, string_map(log_config, "Config"), option)
