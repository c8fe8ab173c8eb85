"""Tar headers written as dockerd writes them: plain ustar where the values fit, else a pax header before (pure).

Never GNU. Source: Go archive/tar with `Format: PAX`; moby pkg/archive: numeric owners only, whole seconds, no access
times, permission bits without the file type (24.0 and later).
"""

from __future__ import annotations

from posixpath import join

from lamina.changeset.entry import Entry, EntryKind

BLOCK = 512
END = bytes(2 * BLOCK)
_FLAGS = {
    EntryKind.FILE: b"0",
    EntryKind.HARD_LINK: b"1",
    EntryKind.SYMLINK: b"2",
    EntryKind.CHARACTER_DEVICE: b"3",
    EntryKind.BLOCK_DEVICE: b"4",
    EntryKind.DIRECTORY: b"5",
    EntryKind.FIFO: b"6",
    EntryKind.GLOBAL_HEADER: b"g",
}
_NAME, _PREFIX, _LINK = 100, 155, 100
_MAX_ID = 0o7777777
_MAX_SIZE = 0o77777777777


def encode_header(entry: Entry) -> bytes:
    """The header blocks of an entry; `entry.size_bytes` bytes of content and padding must follow a file's."""
    records = _records(entry)
    prefix, name = b"", entry.name
    if len(name) > _NAME and not records:
        prefix, name = _split(name)
    if not records and not prefix and (len(name) > _NAME or not name.isascii()):
        records = {b"path": entry.name}
    elif records and (len(entry.name) > _NAME or not entry.name.isascii()):
        records[b"path"] = entry.name
    head = b""
    if records:
        head = _pax_header(entry.name, records)
        prefix, name = b"", _ascii(entry.name, _NAME)
    return head + _block(entry, name, prefix, _FLAGS[entry.kind])


def padding(size_bytes: int) -> bytes:
    """What fills the last block of a body."""
    return bytes(-size_bytes % BLOCK)


def _records(entry: Entry) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    if entry.uid > _MAX_ID:
        records[b"uid"] = b"%d" % entry.uid
    if entry.gid > _MAX_ID:
        records[b"gid"] = b"%d" % entry.gid
    if entry.size_bytes > _MAX_SIZE:
        records[b"size"] = b"%d" % entry.size_bytes
    if entry.mtime_ns < 0:
        records[b"mtime"] = b"%d" % (entry.mtime_ns // 1_000_000_000)
    if len(entry.link) > _LINK or not entry.link.isascii():
        records[b"linkpath"] = entry.link
    for name, value in entry.xattrs:
        records[b"SCHILY.xattr." + name] = value
    return records


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Prefix and rest of a long name, cut at a slash as late as it may be; no prefix when there is no such slash."""
    if not name.isascii():
        return b"", name
    length = min(len(name), _PREFIX + 1)
    if length == len(name) and name.endswith(b"/"):
        length -= 1
    at = name.rfind(b"/", 0, length)
    rest = len(name) - at - 1
    if at <= 0 or at > _PREFIX or not 0 < rest <= _NAME:
        return b"", name
    return name[:at], name[at + 1 :]


def _pax_header(name: bytes, records: dict[bytes, bytes]) -> bytes:
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    directory, _, base = name.rstrip(b"/").rpartition(b"/")
    shown = join(directory, b"PaxHeaders.0", base)
    header = Entry(EntryKind.FILE, shown, mode=0, size_bytes=len(body))
    return _block(header, _ascii(shown, _NAME), b"", b"x", devices=False) + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    r"""`<length> <key>=<value>\n`, where the length counts its own digits."""
    size = len(key) + len(value) + 3
    total = size + len(str(size))
    if len(str(total)) != len(str(size)):
        total = size + len(str(total))
    return b"%d %b=%b\n" % (total, key, value)


def _ascii(name: bytes, size: int) -> bytes:
    return bytes(byte for byte in name if 0 < byte < 128)[:size]


def _octal(value: int, width: int, largest: int) -> bytes:
    if not 0 <= value <= largest:
        value = 0  # the true value is in the pax header
    return b"%0*o\0" % (width - 1, value)


def _block(entry: Entry, name: bytes, prefix: bytes, flag: bytes, *, devices: bool = True) -> bytes:
    device_fields = _octal(entry.major, 8, _MAX_ID) + _octal(entry.minor, 8, _MAX_ID) if devices else bytes(16)
    head = b"".join(
        (
            name.ljust(_NAME, b"\0"),
            _octal(entry.mode, 8, _MAX_ID),
            _octal(entry.uid, 8, _MAX_ID),
            _octal(entry.gid, 8, _MAX_ID),
            _octal(entry.size_bytes, 12, _MAX_SIZE),
            _octal(entry.mtime_ns // 1_000_000_000, 12, _MAX_SIZE),
        )
    )
    tail = b"".join(
        (
            flag,
            _ascii(entry.link, _LINK).ljust(_LINK, b"\0"),
            b"ustar\x0000",
            entry.user[:31].ljust(32, b"\0"),
            entry.group[:31].ljust(32, b"\0"),
            device_fields,
            prefix.ljust(_PREFIX, b"\0"),
            bytes(12),
        )
    )
    checksum = sum(head) + sum(tail) + 8 * 0x20
    return head + b"%06o\0 " % checksum + tail
