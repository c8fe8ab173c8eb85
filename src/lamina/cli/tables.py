"""Tables, sizes, times and ids as people read them; the width of the terminal is given."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
SHORT = 12


def harmless(text: str) -> str:
    """Text from an image or container, without what a terminal would obey."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text).replace("\n", "\\n").replace("\t", "\\t")


def short_id(identity: str) -> str:
    """The first twelve digits, without an algorithm."""
    return identity.removeprefix("sha256:")[:SHORT]


def size(count: float, *, binary: bool = False, digits: int = 3) -> str:
    """Bytes in the unit that keeps them below a thousand: `1.24MB`, or `64MiB`."""
    step, units = (1024, ("B", "KiB", "MiB", "GiB", "TiB")) if binary else (1000, ("B", "kB", "MB", "GB", "TB"))
    value = float(count)
    for unit in units:
        if float(f"{value:.{digits}g}") < step or unit == units[-1]:
            # Never an exponent: 1000 to 1023 KiB have more places than digits.
            text = f"{value:.0f}" if value >= 10**digits else f"{value:.{digits}g}"
            return f"{text}{unit}"
        value /= step
    raise AssertionError("unreachable")


def ago(then_s: float, now_s: float) -> str:
    """`5 minutes ago`."""
    return f"{duration(now_s - then_s)} ago"


def duration(seconds: float) -> str:
    """A length of time in one unit, as docker says it. Source: docker/go-units HumanDuration."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return f"{whole} second{'s' if whole != 1 else ''}"
    minutes = whole // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = round(seconds / 3600)
    for limit, one, many, divisor in (
        (48, "About an hour", "hours", 1),
        (24 * 14, "", "days", 24),
        (24 * 60, "", "weeks", 168),
    ):
        if hours < limit:
            count = hours // divisor
            return one if one and count == 1 else f"{count} {many}"
    if hours < 24 * 365 * 2:
        return f"{hours // (24 * 30)} months"
    return f"{hours // (24 * 365)} years"


def parse_time(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time with any number of fraction digits."""
    whole, _, rest = text.partition(".")
    if rest:
        zone = rest.lstrip("0123456789")
        whole += zone
    return datetime.fromisoformat(whole.replace("Z", "+00:00")).timestamp()


def local_time(seconds: float) -> str:
    """As Go prints a time here: `2026-01-31 10:00:00 +0100 CET`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def go_time(text: str) -> str:
    """An RFC 3339 time as Go prints it: `2026-01-31 10:00:00.123 +0000 UTC`."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T([0-9:.]+)(Z|([+-]\d\d):(\d\d))", text)
    if match is None:
        return text
    zone = "+0000 UTC" if match[3] == "Z" else f"{match[4]}{match[5]} {match[4]}{match[5]}"
    return f"{match[1]} {match[2]} {zone}"


def rfc3339(seconds: float) -> str:
    """A time of this place to the second: `2026-01-31T10:00:00+01:00`, or with `Z` in UTC."""
    text = datetime.fromtimestamp(seconds, tz=UTC).astimezone().isoformat(timespec="seconds")
    return text.replace("+00:00", "Z")


def pairs(labels: Mapping[str, str] | None) -> str:
    """`key=value,other=value`, in order."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items()))


def ellipsis(text: str, limit: int) -> str:
    """At most `limit` characters, the last a `…` when something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


_MIN_WIDTH = 7
"""Of a column that is not the last one, as in docker's tables."""


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], width: int = 0, *, least: int = _MIN_WIDTH
) -> list[str]:
    """Aligned columns, three spaces apart. With a `width` the widest column gives way until a line fits."""
    cells = [[harmless(cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in [list(headers), *cells]) for n in range(len(headers))]
    widths = [max(size, least) for size in widths[:-1]] + widths[-1:]
    if width:
        _shrink(widths, headers, width)
    lines = []
    for row in [list(headers), *cells]:
        fitted = [ellipsis(cell, limit).ljust(limit) for cell, limit in zip(row, widths, strict=True)]
        fitted[-1] = fitted[-1].rstrip()
        line = "   ".join(fitted)
        lines.append(ellipsis(line.rstrip(), width) if width else line)
    return lines


def _shrink(widths: list[int], headers: Sequence[str], width: int) -> None:
    """Take from the widest column until all fit, or no column has more than its header and a few letters."""
    room = width - 3 * (len(widths) - 1)
    while sum(widths) > room:
        able = [n for n, size in enumerate(widths) if size > max(len(headers[n]), _FEW)]
        if not able:
            return
        widths[max(able, key=lambda n: widths[n])] -= 1


_FEW = 8


Columns = Mapping[str, tuple[str, Callable[[Any], str]]]
"""Field name → (column header, how a row's text is made from the object)."""


def listing(
    objects: Sequence[Any], columns: Columns, shown: Sequence[str], *, template: str | None = None, width: int = 0
) -> list[str]:
    """The lines of a listing: a table of the `shown` columns, or whatever `--format` says.

    `template` is `table`, `json`, `table {{…}}`, or a template over the columns' field names.

    Raises:
        InvalidArgument: an unknown field or function.
    """
    if template in (None, "", "table"):
        rows = [[columns[name][1](item) for name in shown] for item in objects]
        return table([columns[name][0] for name in shown], rows, width)
    records = [_record(item, columns) for item in objects]
    assert template is not None
    from lamina.cli.templates import Template, unescape  # a plain table does without

    if template == "json":
        template = "{{json .}}"
    if template.startswith("table "):
        return _templated_table(template.removeprefix("table ").strip(), columns, records, width)
    parsed = Template(unescape(template))
    if not records:
        parsed.render(_headers(columns))  # an unknown field is told even when there is nothing to show
    return [harmless_lines(parsed.render(record)) for record in records]


def _record(item: Any, columns: Columns) -> dict[str, Any]:
    """What a template of `--format` sees: the columns, and `.Label "name"` where there are labels."""
    record: dict[str, Any] = {name: make(item) for name, (_, make) in sorted(columns.items())}
    if "Labels" in columns:
        record["Label"] = lambda name: (item.get("Labels") or {}).get(name, "")
    return record


def _headers(columns: Columns) -> dict[str, Any]:
    return {**{name: head for name, (head, _) in columns.items()}, "Label": _label_header}


def _label_header(name: str) -> str:
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def _templated_table(source: str, columns: Columns, records: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    from lamina.cli.templates import Template, unescape

    cells = unescape(source).split("\t")
    parsed = [Template(cell) for cell in cells]
    heads = _headers(columns)
    rows = [[template.render(record) for template in parsed] for record in records]
    return table([template.render(heads) for template in parsed], rows, width)


def harmless_lines(text: str) -> str:
    """As `harmless`, line ends and tabs kept: a template may make them."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def formatted(value: Any, template: str) -> str:
    """One object through `--format` of inspect, info, version."""
    if template == "json":
        return json_text(value)
    from lamina.cli.templates import Template, unescape

    return harmless_lines(Template(unescape(template)).render(value))


_NOT_IN_JSON = re.compile(r"[\x7f-\x9f\ud800-\udfff]")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON as docker prints it, with nothing in it that a terminal would obey or that is no UTF-8."""
    text = json.dumps(value, separators=None if indent else (",", ":"), indent=indent, ensure_ascii=False)
    return _NOT_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


__all__ = [
    "ago",
    "duration",
    "ellipsis",
    "formatted",
    "harmless",
    "json_text",
    "listing",
    "local_time",
    "pairs",
    "parse_time",
    "rfc3339",
    "short_id",
    "size",
    "table",
]
