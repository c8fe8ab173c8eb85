"""`--storage-opt size=…` of a container (pure)."""

from __future__ import annotations

from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject, string_map

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def size_limit(host_config: JsonObject) -> int | None:
    """`--storage-opt size=…` in bytes; None where there is none.

    Source: docker/go-units RAMInBytes.

    Raises:
        InvalidArgument: another option, or no size.
    """
    options = string_map(host_config, "StorageOpt")
    for name in options:
        if name.lower() != "size":
            raise InvalidArgument(f"unknown option {name[:80]} in --storage-opt", hint="only size is known")
    given = next(iter(options.values()), "").strip().lower().removesuffix("ib").removesuffix("b")
    if not given:
        return None
    number, unit = (given[:-1], given[-1]) if given[-1] in _UNITS else (given, "")
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"invalid size: '{given[:80]}'") from error
