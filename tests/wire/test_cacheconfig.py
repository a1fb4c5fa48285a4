"""The cache config on the wire: what is read, what is refused, and that bytes are reproduced."""

from __future__ import annotations

import contextlib
import gc
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cachefs
from cachefs.errors import ManifestError
from cachefs.wire import codec, oci, timestamps
from cachefs.wire.codec import decode, encode
from tests.graphs import MOMENTS, digest_of, graphs

BLOB = digest_of(1)
WHEN = "2026-11-23T09:08:17.405831881Z"


def manifest(**parts: Any) -> bytes:
    return json.dumps(parts).encode()


def layer(parent: int | None = -1, blob: str = BLOB) -> dict[str, Any]:
    return {"blob": blob, **({} if parent is None else {"parent": parent})}


def test_a_missing_parent_is_layer_0_and_is_left_out_again() -> None:
    raw = manifest(layers=[layer(-1), layer(None, digest_of(2))]).replace(b" ", b"")
    config = decode(raw)
    assert [one.parent for one in config.layers] == [-1, 0]
    assert encode(config) == raw


def test_empty_values_are_left_out_and_the_required_ones_are_not() -> None:
    raw = (
        b'{"layers":[{"blob":"%s","parent":-1,"annotations":{"createdAt":"0001-01-01T00:00:00Z"}}],'
        b'"records":[{"layers":[{"layer":0,"createdAt":"0001-01-01T00:00:00Z"}],'
        b'"chains":[{"layers":[0],"createdAt":"2026-01-01T00:00:00.1Z"}],"digest":"d"},'
        b'{"digest":"e","inputs":[[{"link":0}]]}]}'
    ) % BLOB.encode()
    assert encode(decode(raw)) == raw
    assert encode(decode(b"{}")) == b"{}"


def test_go_escapes_are_written_as_go_writes_them() -> None:
    raw = rb'{"records":[{"digest":"a\u003cb\u003e\u0026\u2028\u2029"}]}'
    assert encode(decode(raw)) == raw


@given(graphs())
def test_any_graph_comes_back_from_its_bytes(graph: cachefs.RecordGraph) -> None:
    raw = encode(graph.to_config())
    assert encode(decode(raw)) == raw
    assert encode(cachefs.RecordGraph(decode(raw)).to_config()) == raw


BAD = {
    "a loop of one record": (
        manifest(records=[{"digest": "a", "inputs": [[{"link": 0}]]}]),
        "record 0 is in a loop",
    ),
    "a loop of two records": (
        manifest(
            records=[
                {"digest": "a", "inputs": [[{"link": 1}]]},
                {"digest": "b", "inputs": [[{"link": 0}]]},
            ]
        ),
        "record 0 is in a loop",
    ),
    "a layer on itself": (manifest(layers=[layer(0)]), "layer 0 is in a loop"),
    "layers on each other": (manifest(layers=[layer(1), layer(0)]), "is in a loop of parents"),
    "a parent out of range": (manifest(layers=[layer(1)]), "layer 0 has the parent 1 of 1"),
    "a parent below -1": (manifest(layers=[layer(-2)]), "layer 0 has the parent -2"),
    "a parent beyond 64 bits": (manifest(layers=[layer(2**63)]), "layer 0|not a cache config"),
    "a parent that is true": (
        b'{"layers":[{"blob":"%s","parent":true}]}' % BLOB.encode(),
        "not a cache config",
    ),
    "a link out of range": (
        manifest(records=[{"digest": "a", "inputs": [[{"link": 1}]]}]),
        "record 0 links 1 of 1",
    ),
    "a negative link": (
        manifest(records=[{"digest": "a", "inputs": [[{"link": -1}]]}]),
        "record 0 links -1",
    ),
    "an input without alternatives": (
        manifest(records=[{"digest": "a", "inputs": [[]]}]),
        "record 0 has an input without alternatives",
    ),
    "a result out of range": (
        manifest(records=[{"digest": "a", "layers": [{"layer": 0, "createdAt": WHEN}]}]),
        "record 0 names",
    ),
    "a negative result": (
        manifest(
            layers=[layer()],
            records=[{"digest": "a", "layers": [{"layer": -1, "createdAt": WHEN}]}],
        ),
        "record 0 names",
    ),
    "a chain out of range": (
        manifest(records=[{"digest": "a", "chains": [{"layers": [0], "createdAt": WHEN}]}]),
        "record 0 names",
    ),
    "a time that is none": (
        manifest(
            layers=[layer()],
            records=[{"digest": "a", "layers": [{"layer": 0, "createdAt": "yesterday"}]}],
        ),
        "record 0: 'yesterday' is not an RFC 3339 time",
    ),
    "a blob outside": (manifest(layers=[layer(blob="sha256:../../x")]), "layer 0: blob"),
    "a blob in upper case": (manifest(layers=[layer(blob=BLOB.upper())]), "layer 0: blob"),
    "a short blob": (manifest(layers=[layer(blob=BLOB[:-1])]), "layer 0: blob"),
    "an MD5 blob": (manifest(layers=[layer(blob="md5:" + "0" * 32)]), "layer 0: blob"),
    "a blob with a line end": (manifest(layers=[layer(blob=BLOB + "\n")]), "layer 0: blob"),
    "two blobs in one": (manifest(layers=[layer(blob=f"{BLOB}\n{BLOB}")]), "layer 0: blob"),
    "no blob": (manifest(layers=[{"parent": -1}]), "layer 0: blob"),
    "a negative size": (
        manifest(layers=[{**layer(), "annotations": {"size": -1, "createdAt": WHEN}}]),
        "layer 0 has the size -1",
    ),
    "more than one object": (b"{}{}", "not a cache config"),
    "nothing": (b"", "not a cache config"),
    "an array": (b"[]", "not a cache config"),
    "NaN": (b'{"layers":[{"blob":"x","parent":NaN}]}', "not a cache config"),
    "an integer of 5,000 digits": (
        b'{"layers":[{"blob":"%s","parent":%s}]}' % (BLOB.encode(), b"9" * 5000),
        "not a cache config|layer 0",
    ),
    "deep nesting": (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not a cache config"),
    "bytes that are no text": (b'{"records":[{"digest":"\xff"}]}', "not a cache config"),
}


@pytest.mark.parametrize("what", BAD)
def test_invalid_manifests_are_refused_with_a_reason(what: str) -> None:
    raw, reason = BAD[what]
    with pytest.raises(cachefs.ManifestError, match=reason):
        decode(raw)


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b" " * 5121, "5121 bytes"),
        (b'"' + "\u20ac".encode() * 500, "1501 bytes"),
        (b'"' + rb"\u20ac" * 300, "1801 bytes"),
        (b"{" * 161, "161 values"),
        (b'{"records":[' + b"{}," * 79 + b"{}]}", "161 values"),
        (b'{"records":[' + b"{}," * 10 + b"{}]}", "11 records and layers"),
    ],
)
def test_a_manifest_beyond_the_bounds_is_refused(raw: bytes, what: str) -> None:
    with pytest.raises(cachefs.ManifestError, match=f"has {what}, too many for max_records=10"):
        decode(raw, max_records=10)


@pytest.mark.parametrize("size", [2**63, 2**64, 10**400, "9" * 5000])
def test_a_size_above_64_bits_is_refused(size: int | str) -> None:
    raw = b'{"layers":[{"annotations":{"createdAt":"","size":%s}}]}' % str(size).encode()
    with pytest.raises(cachefs.ManifestError, match=r"at `\$\.layers\[0\]\.annotations\.size`"):
        decode(raw)


def test_depth_is_no_problem() -> None:
    depth = 100_000
    config = decode(
        manifest(
            layers=[layer(i - 1) for i in range(depth)],
            records=[{"digest": "0"}]
            + [{"digest": str(i), "inputs": [[{"link": i - 1}]]} for i in range(1, depth)],
        )
    )
    graph = cachefs.RecordGraph(config)
    assert len(graph.chain(depth - 1)) == depth
    graph.add_result(depth - 1, depth - 1, WHEN)
    again = decode(encode(graph.to_config()))
    assert len(again.records) == len(again.layers) == depth
    assert len(graph.select("min").layers) == depth


@given(st.binary(max_size=200) | graphs().map(lambda g: encode(g.to_config())), st.data())
def test_damaged_bytes_raise_nothing_but_manifest_errors(raw: bytes, data: st.DataObject) -> None:
    if raw:
        at = data.draw(st.integers(0, len(raw) - 1))
        raw = raw[:at] + bytes([data.draw(st.integers(0, 255))]) + raw[at + 1 :]
    for read in (decode, oci.decode_index, oci.decode_manifest):
        try:
            read(raw)
        except cachefs.ManifestError:
            continue


@given(MOMENTS)
def test_times_keep_their_nanoseconds(text: str) -> None:
    assert timestamps.from_nanoseconds(timestamps.nanoseconds(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.5Z", 500_000_000),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000_000),
        ("0001-01-01T00:00:00+01:00", -62_135_600_400_000_000_000),
    ],
)
def test_times_are_read_exactly(text: str, expected: int) -> None:
    assert timestamps.nanoseconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "2026-11-23", "2026-13-01T00:00:00Z", f"{WHEN}\n", "2026-11-23T09:08:17.Z"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    assert not timestamps.is_timestamp(text)
    with pytest.raises(ValueError, match="RFC 3339"):
        timestamps.nanoseconds(text)


@pytest.mark.parametrize("valid", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
def test_decoding_leaves_the_garbage_collector_as_it_was(valid: bool, enabled: bool) -> None:
    raw = b'{"records":[{"digest":"a"}]}' if valid else b"not JSON"
    was_enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    (gc.enable if enabled else gc.disable)()
    try:
        with contextlib.nullcontext() if valid else pytest.raises(ManifestError):
            codec.decode(raw)
        assert gc.isenabled() == enabled
        assert gc.get_freeze_count() == frozen
    finally:
        (gc.enable if was_enabled else gc.disable)()
