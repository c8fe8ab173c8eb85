from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina.wire.engine.rawstream import MAX_FRAME_BYTES, Deframer, frame

FRAMES = st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.binary(min_size=1, max_size=50)), max_size=8)


def test_a_frame_is_eight_bytes_and_the_data():
    assert frame(2, b"abc") == b"\x02\0\0\0\0\0\0\x03abc"
    assert frame(1, b"") == b""


@given(FRAMES, st.integers(1, 20))
def test_frames_come_out_as_they_went_in(frames, size):
    stream = b"".join(frame(*item) for item in frames)
    deframer = Deframer()
    found = [item for at in range(0, len(stream), size) for item in deframer.feed(stream[at : at + size])]
    assert found == frames
    assert deframer.pending == 0


def test_long_data_is_several_frames():
    data = bytes(2 * MAX_FRAME_BYTES + 5)
    found = Deframer().feed(frame(1, data))
    assert [len(piece) for _, piece in found] == [MAX_FRAME_BYTES, MAX_FRAME_BYTES, 5]


def test_an_incomplete_frame_is_pending():
    deframer = Deframer()
    assert deframer.feed(b"\1\0\0\0\0\0\0\5ab") == []
    assert deframer.pending == 10
