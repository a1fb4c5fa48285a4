"""What others wrote takes bounded memory, however small it looks.

Each case runs in a process of its own, because a peak is that of a whole process. The limits
asserted are far above what is used now, and far below what the same bytes took without bounds.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import cachefs
from cachefs import store
from cachefs.concurrency import map_concurrently, run
from cachefs.filesystems.local import LocalFilesystem

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process"
)

_MEASURED = """
import gzip, hashlib, io, re, struct, sys, tarfile, tempfile
from pathlib import Path
import zstandard
import cachefs
from cachefs.building.log import frames
from cachefs.layers import tarformat
from cachefs.layers.compression import MEDIA_TYPES
from cachefs.layers.extracting import LayerSource, extract_chain
from cachefs.wire import codec, oci

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

def member(kind, data):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, len(data)
    return info.tobuf() + data + bytes(-len(data) % 512)

def pax(key, value):
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return member(tarfile.XHDTYPE, b"%d %b=%b\\n" % (length, key, value))

def packed(parts):
    into, hashed = io.BytesIO(), hashlib.sha256()
    with zstandard.ZstdCompressor().stream_writer(into, closefd=False) as writer:
        for part in parts:
            hashed.update(part)
            writer.write(part)
    return into.getvalue(), cachefs.Digest.from_hex(hashed.hexdigest())

def extracted(blob, digest, kind="zstd"):
    with tempfile.TemporaryDirectory() as folder:
        source = LayerSource(io.BytesIO(blob), MEDIA_TYPES[kind], digest)
        extract_chain([source], Path(folder, "out"))

def replayed(blob):
    with tempfile.TemporaryFile() as file:
        with zstandard.ZstdDecompressor().stream_reader(blob) as reader:
            while data := reader.read(1 << 20):
                file.write(data)
        file.seek(0)
        for _ in frames(file):
            pass

def measured(function, *arguments):
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of making the bytes
    before = peak()
    try:
        function(*arguments)
    except cachefs.CacheError as error:
        print(type(error).__name__, peak() - before)
    else:
        print("fine", peak() - before)
"""

RECORDS = b'{"records":[%s]}'
CASES = {
    "extended headers of a layer": (
        """measured(extracted, *packed(pax(b"k%d" % i, b"x" * 900_000) for i in range(200)))""",
        "LayerError",
        100,
    ),
    "keys of extended headers": (
        """measured(extracted, *packed([
            member(tarfile.XHDTYPE, b"".join(b"9 %4x=a\\n" % i for i in range(65536))),
            member(tarfile.REGTYPE, b""), tarformat.END]))""",
        "fine",
        100,
    ),
    "a frame of a log": (
        """blob, _ = packed([struct.pack(">BI", 1, 200 << 20), *[bytes(1 << 20)] * 200])
measured(replayed, blob)""",
        "fine",
        50,
    ),
    "the window of zstd": (
        """parameters = zstandard.ZstdCompressionParameters(window_log=30, strategy=1)
blob = zstandard.ZstdCompressor(compression_params=parameters).compress(bytes(1 << 20) * 300)
measured(extracted, blob, cachefs.Digest.of(b""))""",
        "IntegrityError",
        50,
    ),
    "members of gzip": (
        """measured(extracted, gzip.compress(b"") * 100_000, cachefs.Digest.of(b""), "gzip")""",
        "fine",
        50,
    ),
    "zeros of gzip": (
        """blob = gzip.compress(bytes(1 << 20) * 100)
measured(extracted, blob, cachefs.Digest.of(bytes(1 << 20) * 100), "gzip")""",
        "fine",
        50,
    ),
    "tiny records": (
        """measured(codec.decode, b'{"records":[' + b"{}," * 20_000_000 + b"{}]}")""",
        "ManifestError",
        50,
    ),
    "tiny records up to the bound": (
        """measured(codec.decode, b'{"records":[' + b"{}," * 7_000_000 + b"{}]}")""",
        "ManifestError",
        600,
    ),
    "links": (
        """measured(codec.decode, b'{"records":[{"inputs":[[' + b'{"link":0},' * 12_000_000
            + b'{"link":0}]]}]}')""",
        "ManifestError",
        50,
    ),
    "wide text": (
        """measured(codec.decode, ('{"records":[{"digest":"' + "a" * 150_000_000
            + "\\U0001f600\\"}]}").encode())""",
        "ManifestError",
        50,
    ),
    "entries of an index": (
        """measured(oci.decode_index, b'{"schemaVersion":2,"manifests":['
            + b'{"mediaType":"","digest":"","size":0},' * 4_500_000 + b'{}]}')""",
        "ManifestError",
        50,
    ),
    "annotations of a descriptor": (
        """measured(oci.decode_index, b'{"schemaVersion":2,"manifests":[{"annotations":{'
            + b'"a":"",' * 17_000_000 + b'"":""}}]}')""",
        "ManifestError",
        50,
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_hostile_bytes_take_bounded_memory(what: str) -> None:
    script, outcome, mebibytes = CASES[what]
    output = subprocess.run(
        [sys.executable, "-c", _MEASURED + script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert output[0] == outcome
    assert int(output[1]) < mebibytes


def test_a_manifest_of_tiny_records_is_refused_where_it_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    with (folder / "huge").open("wb") as file:
        file.write(b'{"records":[')
        file.write(b"{}," * 50_000_000)
        file.write(b"{}]}")
    script = _MEASURED + f"measured(cachefs.open({str(tmp_path)!r}).manifest, 'huge')"
    output = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert output[0] == "ManifestError"
    assert int(output[1]) < 350


@pytest.mark.parametrize("versioned", [False, True])
def test_of_large_manifests_one_is_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versioned: bool
) -> None:
    monkeypatch.setattr(store, "TOGETHER", 1000)
    names = [f"{size}-{number}" for size in (900, 5000) for number in range(8)]
    for name in names:
        (tmp_path / name).write_bytes(bytes(int(name.partition("-")[0])))
    under_way = most = 0
    read = LocalFilesystem.read_checked

    async def counted(self: LocalFilesystem, path: str, limit: int) -> bytes:
        nonlocal under_way, most
        under_way += limit > 1000
        most = max(most, under_way)
        await asyncio.sleep(0)
        data = await read(self, path, limit)
        under_way -= limit > 1000
        return data

    monkeypatch.setattr(LocalFilesystem, "read_checked", counted)
    objects = cachefs.open(str(tmp_path)).layout.store

    async def length(name: str) -> int:
        if versioned:
            return len((await objects.read_versioned(name, limit=10_000))[0])
        return len(await objects.read(name, limit=10_000))

    lengths = run(map_concurrently(names, length, 16))
    assert lengths == [int(name.partition("-")[0]) for name in names]
    assert most == 1
