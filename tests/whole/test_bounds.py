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
import gzip, hashlib, io, re, shutil, struct, sys, tarfile, tempfile
from pathlib import Path
import zstandard
import cachefs
from cachefs.building.log import frames
from cachefs.layers import tarformat
from cachefs.layers.compression import MEDIA_TYPES
from cachefs.layers.extracting import LayerSource, extract_chain
from cachefs.wire import cacheconfig, codec, description, oci, tying

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
    "results with many layers": (
        """layers = [cacheconfig.Layer(str(cachefs.Digest.of(b"%d" % i)), i - 1)
    for i in range(20_000)]
of_record = tuple(cacheconfig.Result(i, f"2026-01-01T00:00:{i % 60:02}Z") for i in range(20_000))
graph = cachefs.RecordGraph(cacheconfig.CacheConfig(
    layers, [cacheconfig.Record(digest="a", layers=of_record)]))
measured(graph.results, [0])""",
        "fine",
        60,
    ),
    "leaves of a union": (
        """records = [cacheconfig.Record(digest="root")]
for i in range(60_000):
    at = len(records)
    records.append(cacheconfig.Record(digest="a", inputs=((cacheconfig.Link(link=0),),)))
records.append(cacheconfig.Record(digest="b", inputs=((cacheconfig.Link(link=0),),) * 2))
measured(tying.tied, cacheconfig.CacheConfig([], records))""",
        "fine",
        60,
    ),
    "descriptions": (
        """folder = Path(tempfile.mkdtemp())
shown = b'{"outputs":[' + b'"",' * 340_000 + b'""]}'
blob = str(cachefs.Digest.of(shown))
for name, data in (("blobs/" + blob, shown), ("manifests/bad", b"")):
    (folder / name).parent.mkdir()
    (folder / name).write_bytes(data)
layer = cacheconfig.Layer(blob, -1, cacheconfig.Annotations(
    media_type=description.MEDIA_TYPE, size=len(shown), created_at="2026-01-01T00:00:00Z"))
result = (cacheconfig.Result(0, "2026-01-01T00:00:00Z"),)
records = [cacheconfig.Record(digest=f"{i}", layers=result) for i in range(300)]
(folder / "manifests/bad").write_bytes(codec.encode(cacheconfig.CacheConfig([layer], records)))
measured(cachefs.open(folder).describe, "bad")
shutil.rmtree(folder)""",
        "fine",
        350,
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
