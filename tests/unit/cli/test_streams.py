"""Frames of a taken-over connection come out on the right stream; files appear whole or not at all; progress is plain."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.cli.files import write_output
from lamina.cli.progress import show_progress
from lamina.errors import LaminaError

PROGRAM = """
import socket, sys
from lamina.cli.terminal import Streams
Streams(socket.socket(fileno=int(sys.argv[1])), framed=sys.argv[2] == "True", stdin=False).run()
"""


def moved(pieces: list[bytes], *, framed: bool) -> tuple[bytes, bytes]:
    """What a program with these streams writes to its standard output and error."""
    near, far = socket.socketpair()
    argv = [sys.executable, "-c", PROGRAM, str(near.fileno()), str(framed)]
    with subprocess.Popen(argv, pass_fds=[near.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        near.close()
        with far:
            for piece in pieces:
                far.sendall(piece)
        return program.communicate()


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=300)), max_size=20), st.integers(1, 50))
def test_frames_cut_anywhere(frames: list[tuple[int, bytes]], cut: int) -> None:
    data = b"".join(struct.pack(">BxxxI", stream, len(text)) + text for stream, text in frames)
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
    out, err = moved(pieces, framed=True)
    assert out == b"".join(text for stream, text in frames if stream == 1)
    assert err == b"".join(text for stream, text in frames if stream == 2)


def test_a_terminal_stream_is_passed_as_it_is() -> None:
    assert moved([b"\x01\0\0\0\0\0\0\x05hello"], framed=False) == (b"\x01\0\0\0\0\0\0\x05hello", b"")


class Breaking(io.BytesIO):
    """A stream that ends in the middle with an error."""

    def read(self, amount: int | None = -1, /) -> bytes:
        data = super().read(5)
        if not data:
            raise OSError("the connection broke")
        return data


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a.tar"
    target.write_bytes(b"before")
    with pytest.raises(LaminaError, match="connection broke"):
        write_output(Breaking(b"0123456789"), str(target))
    assert target.read_bytes() == b"before"
    write_output(io.BytesIO(b"after"), str(target))
    assert target.read_bytes() == b"after"
    assert os.listdir(tmp_path) == ["a.tar"]


def test_output_into_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_output(io.BytesIO(b"data"), str(pipe))
    reader.join()
    assert read == [b"data"]


def test_progress_without_a_terminal_is_one_line_per_change() -> None:
    out = io.StringIO()
    layer = {"id": "abc", "status": "Downloading", "progressDetail": {"current": 1, "total": 9}}
    show_progress(
        iter([
            {"status": "Pulling from x", "id": "latest"}, layer, layer, {"id": "abc", "status": "Pull complete"},
            {"status": "Status: \x1b[31mred"}, {"stream": "Loaded image: x\n"}, {"aux": {"Tag": "x"}},
        ]),
        out,
    )  # fmt: skip
    assert out.getvalue().splitlines() == [
        "latest: Pulling from x", "abc: Downloading", "abc: Pull complete", "Status: \\x1b[31mred", "Loaded image: x",
    ]  # fmt: skip
