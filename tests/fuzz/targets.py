"""What is fuzzed: each target reads bytes that others may have written.

A target returns if the bytes were accepted, and then everything that follows from that must hold,
or if they were refused with the error that is promised. Anything else is a fault.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cachefs.building import log
from cachefs.digest import Digest, all_digests
from cachefs.errors import (
    CacheNameError,
    DigestError,
    IntegrityError,
    LayerError,
    LocationError,
    ManifestError,
)
from cachefs.graph import RecordGraph
from cachefs.layers import placing, tarformat
from cachefs.layers.compression import MEDIA_TYPES, decompressed
from cachefs.layout import oci_manifests
from cachefs.location.keys import check_name, key_fault
from cachefs.location.parsing import parse
from cachefs.wire import cacheconfig, codec, oci, timestamps
from cachefs.wire.canonical import canonical

Target = Callable[[bytes], None]


def location(data: bytes) -> None:
    """The text of a location; its secrets are not shown."""
    role = (None, "import", "export")[data[0] % 3] if data else None
    text = data[1:].decode(errors="replace")
    with suppress(LocationError, CacheNameError):
        found = parse(text, role=role, environ={})
        str(found)
        secret = found.s3 and found.s3.secret_access_key
        if secret and len(secret.reveal()) > 30 and text.count(secret.reveal()) == 1:
            assert secret.reveal() not in repr(found)


def manifest(data: bytes) -> None:
    """A cache config: what is accepted is written in the same way again, and can be worked on."""
    with suppress(ManifestError):
        config = codec.decode(data, max_records=1000)
        assert codec.decode(codec.encode(config)) == config
        ordered = canonical(config)
        assert codec.encode(canonical(ordered)) == codec.encode(ordered)
        graph = RecordGraph(config)
        RecordGraph.union([graph, RecordGraph(ordered)]).to_config()
        for annotations in (layer.annotations for layer in config.layers):
            if annotations:
                assert 0 <= annotations.size < 2**63
                timestamps.in_utc(annotations.created_at)


def index(data: bytes) -> None:
    """An OCI index or image manifest, read as that of a tag."""
    with suppress(ManifestError):
        found = oci.decode_index(data, max_records=1000)
        assert oci.decode_index(oci.encode(found)) == found
    for media_type in (oci.INDEX, oci.MANIFEST):
        top = oci.Descriptor(media_type=media_type, digest="", size=0)
        with suppress(ManifestError):
            oci_manifests._split(top, data, 1000)


def layer(data: bytes) -> None:
    """A layer's blob: its archive, compressed or not, also with the checksums put right."""
    kind = data[0] % 4 if data else 3
    names = ("zstd", "gzip", "uncompressed", "uncompressed")
    blob = data[1:] if kind < 3 else _checksummed(data[1:])
    with suppress(LayerError, IntegrityError):
        archive = tarformat.Archive(decompressed(io.BytesIO(blob), MEDIA_TYPES[names[kind]]))
        for member in archive.members():
            placing.parts(member.name)
            read = sum(len(part) for part in archive.data(member))
            assert read == member.size


def _checksummed(data: bytes) -> bytes:
    """Blocks of an archive, each with the checksum that a header would have."""
    blocks = []
    for start in range(0, len(data) & ~511, 512):
        block = data[start : start + 512]
        blank = block[:148] + b" " * 8 + block[156:]
        blocks.append(b"%b%06o\0 %b" % (block[:148], sum(blank), block[156:]))
    return b"".join(blocks)


def output(data: bytes) -> None:
    """The log of a command."""
    read = 0
    with suppress(IntegrityError):
        for stream, chunk in log.frames(io.BytesIO(data)):
            assert stream in (1, 2)
            assert 0 < len(chunk) <= 64 * 1024
            read += len(chunk)
        assert read <= len(data)


def time(data: bytes) -> None:
    """The text of a time: what is accepted can be compared and shown."""
    text = data.decode(errors="replace")
    if not timestamps.is_timestamp(text):
        assert not timestamps.all_timestamps([text])
        return
    assert timestamps.all_timestamps([text, text])
    moment = timestamps.nanoseconds(text)
    shown = timestamps.in_utc(text)
    assert timestamps.nanoseconds(shown) == moment - moment % 10**9 or shown == text


def digest(data: bytes) -> None:
    """The text of a digest, alone and among others."""
    text = data.decode(errors="replace")
    good = f"sha256:{'0' * 64}"
    try:
        accepted = Digest(text) == text and len(Digest(text).hex) == 64
    except DigestError:
        accepted = False
    assert all_digests([text]) == accepted
    assert all_digests([good, text, good]) == accepted
    # Two texts are checked as one, but must each be a digest.
    assert not all_digests([f"{text}s", good[1:]])


def name(data: bytes) -> None:
    """A name: what is accepted is a key below the prefix."""
    text = data.decode(errors="surrogateescape")
    with suppress(CacheNameError):
        accepted = check_name(text)
        assert accepted == text
        assert key_fault(text) is None
        assert not {"", ".", ".."}.intersection(accepted.split("/"))
        assert "\0" not in accepted
        accepted.encode()


TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (location, manifest, index, layer, output, time, digest, name)
}

SEEDS: Final[dict[str, tuple[bytes, ...]]] = {
    "location": (
        b"\0s3://bucket/app/",
        b"\1type=s3,bucket=b,region=r,name=a;b,prefix=ci/,access_key_id=k,secret_access_key=%b"
        % (b"s" * 36),
        b"\2type=local,dest=/cache,tag=v1,compression=zstd,compression-level=3",
        b"\0type=azblob,account_url=https://a.blob.core.windows.net,container=c",
        b'\2type=fsspec,url=sftp://user:pass@host/dir,"name=a;b,c",touch_refresh=1h30m',
    ),
    "manifest": (
        b'{"layers":[{"blob":"sha256:%b","parent":-1,"annotations":{"mediaType":"t","diffID":"",'
        b'"size":7,"createdAt":"2026-01-02T03:04:05.6+01:00"}}],"records":[{"layers":[{"layer":0,'
        b'"createdAt":"2026-01-02T03:04:05Z"}],"digest":"d"},{"chains":[{"layers":[0],"createdAt":'
        b'"0001-01-01T00:00:00+23:59"}],"digest":"e","inputs":[[{"selector":"s","link":0}]]}]}'
        % (b"0" * 64),
    ),
    "index": (
        b'{"schemaVersion":2,"mediaType":"%b","manifests":[{"mediaType":"'
        b'application/vnd.buildkit.cacheconfig.v0","digest":"d","size":1,"annotations":{"k":"v"}}]}'
        % oci.INDEX.encode(),
        b'{"schemaVersion":2,"config":{"mediaType":"%b","digest":"d","size":1},"layers":['
        b'{"mediaType":"m","digest":"d","size":2}]}' % cacheconfig.MEDIA_TYPE.encode(),
    ),
    "layer": tuple(
        b"\3"
        + tarformat.header(name, kind, mode=0o644, size=3 * (kind == b"0"), link=link)
        + (b"abc" + bytes(509) if kind == b"0" else b"")
        for name, kind, link in (
            (b"file", b"0", b""),
            (b"n" * 150, b"0", b""),
            (b"link", b"2", b"target" * 20),
            (b"dir/.wh.x", b"5", b""),
        )
    ),
    "output": (struct.pack(">BI", 1, 3) + b"abc" + struct.pack(">BI", 2, 0),),
    "time": (b"2026-01-02T03:04:05.678901234Z", b"0001-01-01T00:00:00+01:00"),
    "digest": (b"sha256:" + b"0123456789abcdef" * 4,),
    "name": (b"main", b"feature/a-b.c"),
}
"""Where fuzzing begins: valid bytes of each kind."""
