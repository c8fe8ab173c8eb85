r"""The keys that leave a container running and its client free (pure).

Source: docker attach --detach-keys: single characters as they are, `ctrl-` with a letter or one of
`@ [ \ ] ^ _`, separated by commas.
"""

from __future__ import annotations

from lamina.errors import InvalidArgument

DEFAULT_KEYS = "ctrl-p,ctrl-q"

_CONTROL = {f"ctrl-{chr(letter)}": letter - ord("a") + 1 for letter in range(ord("a"), ord("z") + 1)} | {
    "ctrl-@": 0,
    "ctrl-[": 27,
    "ctrl-\\": 28,
    "ctrl-]": 29,
    "ctrl-^": 30,
    "ctrl-_": 31,
}


def parse_keys(text: str) -> bytes:
    """The byte sequence of a key list; the default keys for an empty text.

    Raises:
        InvalidArgument: a key is neither one character nor a known ctrl- key.
    """
    keys = bytearray()
    for key in (text or DEFAULT_KEYS).split(","):
        if len(key) == 1 and key.isascii():
            keys.append(ord(key))
        elif key in _CONTROL:
            keys.append(_CONTROL[key])
        else:
            raise InvalidArgument(f"Invalid detach keys ({text}) provided: Unknown character: '{key}'")
    return bytes(keys)


class DetachScanner:
    """Bytes typed in, bytes for the container out, until the detach keys were typed.

    A part of the sequence is held back until it is known not to be the sequence.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0
        self.detached = False

    def feed(self, data: bytes) -> bytes:
        """What the container gets of these bytes; what follows the sequence is dropped."""
        if self.detached or not self._keys:
            return b"" if self.detached else data
        if not self._matched and self._keys[0] not in data:
            return data
        out = bytearray()
        for byte in data:
            out += self._step(byte)
            if self._matched == len(self._keys):
                self.detached = True
                break
        return bytes(out)

    def flush(self) -> bytes:
        """The end of input: what was held back goes to the container after all."""
        held = self._keys[: self._matched]
        self._matched = 0
        return b"" if self.detached else held

    def _step(self, byte: int) -> bytes:
        if byte == self._keys[self._matched]:
            self._matched += 1
            return b""
        seen = self._keys[: self._matched] + bytes([byte])
        # The longest end of what was seen that begins the sequence again stays held back.
        for keep in range(min(len(seen), len(self._keys) - 1), -1, -1):
            if seen.endswith(self._keys[:keep]):
                self._matched = keep
                return seen[: len(seen) - keep]
        raise AssertionError("unreachable: keep 0 always matches")
