"""The log: what was written is replayed, in chunks, and damage is noticed."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefs.building.log import LogWriter, frames
from cachefs.errors import IntegrityError

OUTPUT = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=10)))


@given(OUTPUT)
def test_the_output_is_replayed_in_order(output: list[tuple[int, bytes]]) -> None:
    file = io.BytesIO()
    writer = LogWriter(file)
    for stream, data in output:
        writer.write(stream, data)
    file.seek(0)
    assert list(frames(file)) == [(stream, data) for stream, data in output if data]


def test_a_long_frame_is_read_in_pieces() -> None:
    data = bytes(range(256)) * 1000
    file = io.BytesIO(struct.pack(">BI", 2, len(data)) + data)
    chunks = list(frames(file))
    assert {stream for stream, _ in chunks} == {2}
    assert b"".join(chunk for _, chunk in chunks) == data
    assert max(len(chunk) for _, chunk in chunks) <= 64 * 1024


@pytest.mark.parametrize(
    "raw", [b"\1", b"\1\0\0\0", b"\1\0\0\0\2a", b"\3\0\0\0\1a", b"\1\xff\xff\xff\xffabc"]
)
def test_a_damaged_log_is_noticed(raw: bytes) -> None:
    with pytest.raises(IntegrityError, match="damaged"):
        list(frames(io.BytesIO(raw)))
