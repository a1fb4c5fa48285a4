"""The tar format: headers are written in one way only, and read in all ways that builders write.

Archives are written as POSIX ustar, with a pax header if a name is long or not ASCII, or a size
does not fit. These are read, as are old (V7) tar, and GNU's long names and binary sizes. Sparse
files have the pax form of version 1.0 (:mod:`cachefs.layers.sparse`); older forms of them,
multi-volume archives and other extensions are refused: builders do not write them. Names are bytes,
as in the archive and on disk; whether a name is safe is not checked here.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from cachefs.errors import LayerError

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK: Final = 512
"""Headers and data are padded to a multiple of this many bytes."""

END: Final = bytes(2 * BLOCK)
"""The end of an archive."""

FILE: Final = b"0"
HARD_LINK: Final = b"1"
SYMLINK: Final = b"2"
DIRECTORY: Final = b"5"

MTIME: Final = 946_684_800
"""The time of every written member: 2000-01-01, because some tools refuse times before 1980."""

_HEADER: Final = struct.Struct("100s8s16s12s12s8s1s100s8s247s")
_NAME_FIELD: Final = 100
_SIZE_LIMIT: Final = 8**11
_USTAR: Final = b"ustar\x0000"
_PAX: Final = b"x"
_PAX_GLOBAL: Final = b"g"
_GNU_LONG_NAME: Final = b"L"
_GNU_LONG_LINK: Final = b"K"
_EXTENSIONS: Final = frozenset({_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK})
EXTENSION_LIMIT: Final = 1024 * 1024
"""Maximum bytes of all the extended headers before one member."""

_USED: Final = (b"path", b"linkpath", b"size")
_SPARSE: Final = b"GNU.sparse."
_SPARSE_MAJOR: Final = b"GNU.sparse.major"
_SPARSE_MINOR: Final = b"GNU.sparse.minor"
_SPARSE_NAME: Final = b"GNU.sparse.name"
_SPARSE_SIZE: Final = b"GNU.sparse.realsize"
_SPARSE_KEYS: Final = (_SPARSE_MAJOR, _SPARSE_MINOR, _SPARSE_NAME, _SPARSE_SIZE)
_SPARSE_DIRECTORY: Final = b"GNUSparseFile.0/"
"""Where readers that do not know sparse files put them: they hold something else."""

_NAMES: Final = (b"path", b"linkpath", _SPARSE_NAME)
_KINDS: Final = {b"\0": FILE, b"7": FILE, FILE: FILE} | {
    kind: kind for kind in (HARD_LINK, SYMLINK, DIRECTORY)
}
_REFUSED: Final = {
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"S": "a sparse file",
}
_OCTAL: Final = re.compile(rb"[ \0]*([0-7]*)(?:[ \0].*)?", re.DOTALL)
_DECIMAL: Final = re.compile(rb"[0-9]{1,18}")
_PAX_LENGTH: Final = re.compile(rb"([1-9][0-9]{0,6}) ")


def header(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    size: int = 0,
    link: bytes = b"",
    real_size: int | None = None,
) -> bytes:
    """The bytes before a member's data: one header, after a pax header if needed.

    ``real_size`` is the size of a sparse file, of which the archive has ``size`` bytes. The same
    arguments give the same bytes everywhere: the owner is 0 and the time :data:`MTIME`. Raises
    LayerError if the pax header would be too long for :class:`Archive`.
    """
    pax = b""
    if real_size is not None:
        pax += _pax_record(_SPARSE_MAJOR, b"1") + _pax_record(_SPARSE_MINOR, b"0")
        pax += _pax_record(_SPARSE_NAME, name) + _pax_record(_SPARSE_SIZE, b"%d" % real_size)
        name = _SPARSE_DIRECTORY + name.rpartition(b"/")[2][: _NAME_FIELD - len(_SPARSE_DIRECTORY)]
    elif len(name) > _NAME_FIELD or not name.isascii():
        pax += _pax_record(b"path", name)
    if len(link) > _NAME_FIELD or not link.isascii():
        pax += _pax_record(b"linkpath", link)
    if size >= _SIZE_LIMIT:
        pax += _pax_record(b"size", b"%d" % size)
        size = 0
    block = _block(name, kind, mode, size, link)
    if len(pax) > EXTENSION_LIMIT:
        raise _too_long()
    if pax:
        before = _block(b"././@PaxHeader", _PAX, 0o644, len(pax), b"")
        return before + pax + padding(len(pax)) + block
    return block


def padding(size: int) -> bytes:
    """The bytes that fill the last block of ``size`` bytes of data."""
    return bytes(-size % BLOCK)


def _block(name: bytes, kind: bytes, mode: int, size: int, link: bytes) -> bytes:
    block = _HEADER.pack(
        name,
        b"%07o" % mode,
        b"0000000\x000000000",
        b"%011o" % size,
        b"%011o" % MTIME,
        b"        ",
        kind,
        link,
        _USTAR,
        b"",
    )
    return b"%b%06o\x00 %b" % (block[:148], sum(block), block[156:])


def _pax_record(key: bytes, value: bytes) -> bytes:
    """``length key=value``, where the length includes its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


class Member(NamedTuple):
    """A file, directory or link of an archive.

    ``size`` is the number of data bytes that follow. ``real_size`` is the size of a sparse file,
    and None for others.
    """

    name: bytes
    kind: bytes
    mode: int
    size: int
    link: bytes
    real_size: int | None = None


class Archive:
    """Reads the members of an archive in order from its chunks, holding one chunk at a time.

    Every method raises LayerError if the bytes are not a valid archive, and errors of the chunks.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")
        self._taken = 0
        self._unread = 0

    @property
    def offset(self) -> int:
        """How many bytes of the archive were read: right after a header, where its data begins."""
        return self._taken - len(self._chunk)

    def members(self) -> Iterator[Member]:
        """The members in order; :meth:`data` reads a member's data before the next is taken."""
        while (member := self._next()) is not None:
            self._unread = member.size + -member.size % BLOCK
            yield member
            for _ in self._some(self._unread):
                pass

    def data(self, member: Member) -> Iterator[memoryview]:
        """The data of the last member, in chunks that are valid until the next one."""
        yield from self._some(member.size)

    def drain(self) -> None:
        """Read to the end of the chunks."""
        self._chunk = memoryview(b"")
        for _ in self._chunks:
            pass

    def _next(self) -> Member | None:
        extended: dict[bytes, bytes] = {}
        left = EXTENSION_LIMIT
        while True:
            block = self._exactly(BLOCK, may_end=True)
            if not block or not any(block):
                return None
            fields = _HEADER.unpack(block)
            if _number(fields[5]) != sum(block) - sum(fields[5]) + 8 * 0x20:
                raise LayerError(
                    "the layer is not a tar archive: the checksum of a header is wrong"
                )
            if fields[6] not in _EXTENSIONS:
                return _member(fields, extended)
            size = _number(fields[3])
            left -= max(size, BLOCK)
            if left < 0:
                raise _too_long()
            self._extend(extended, fields[6], size)

    def _extend(self, extended: dict[bytes, bytes], kind: bytes, size: int) -> None:
        """Read the data of a header that extends the next one."""
        data = self._exactly(size + -size % BLOCK)[:size]
        if kind == _GNU_LONG_NAME:
            extended[b"path"] = _text(data)
        elif kind == _GNU_LONG_LINK:
            extended[b"linkpath"] = _text(data)
        elif kind == _PAX:
            extended |= _pax_records(data)
        elif not _pax_records(data).keys().isdisjoint(_USED):
            raise LayerError(
                "the layer has a global header with a name or size for all of its files"
            )

    def _exactly(self, size: int, *, may_end: bool = False) -> bytes:
        if len(self._chunk) >= size:
            data, self._chunk = bytes(self._chunk[:size]), self._chunk[size:]
        else:
            gathered = bytearray()  # objects for chunks of a byte would take 300 times as much
            for part in self._chunks_of(size):
                gathered += part
            data = bytes(gathered)
        if len(data) < size and (data or not may_end):
            raise _ends_early()
        return data

    def _some(self, size: int) -> Iterator[memoryview]:
        size = min(size, self._unread)
        for part in self._chunks_of(size):
            self._unread -= len(part)
            size -= len(part)
            yield part
        if size:
            raise _ends_early()

    def _chunks_of(self, size: int) -> Iterator[memoryview]:
        """The next bytes, up to ``size``; fewer only if the chunks end."""
        while size:
            if not self._chunk:
                chunk = next(self._chunks, None)
                if chunk is None:
                    return
                self._chunk = memoryview(chunk)
                self._taken += len(chunk)
            part, self._chunk = self._chunk[:size], self._chunk[size:]
            size -= len(part)
            yield part


def _ends_early() -> LayerError:
    return LayerError("the layer ends in the middle of a file or header")


def _member(fields: tuple[bytes, ...], extended: dict[bytes, bytes]) -> Member:
    name, mode, _owner, size, _mtime, _checksum, kind, link, magic, rest = fields
    name = _text(name)
    if magic[:6] == b"ustar\0" and (prefix := _text(rest[80:235])):
        name = prefix + b"/" + name
    name = extended.get(b"path", name)
    link = extended.get(b"linkpath", _text(link))
    known = _KINDS.get(kind)
    if known is None:
        what = _REFUSED.get(kind, f"of the unknown type {kind!r}")
        raise LayerError(f"{shown(name)} is {what}, which is not extracted")
    real_size = None
    if any(key.startswith(_SPARSE) for key in extended):
        name, real_size = _sparse(name, known, extended)
    if kind == b"\0" and name.endswith(b"/"):
        known = DIRECTORY
    return Member(name, known, _number(mode), _size(known, size, extended), link, real_size)


def _sparse(name: bytes, kind: bytes, extended: dict[bytes, bytes]) -> tuple[bytes, int]:
    """The name and size of a sparse file."""
    version = extended.get(_SPARSE_MAJOR), extended.get(_SPARSE_MINOR)
    size = extended.get(_SPARSE_SIZE, b"")
    if kind != FILE or version != (b"1", b"0") or _DECIMAL.fullmatch(size) is None:
        raise LayerError(
            f"{shown(name)} is a sparse file in another form than pax 1.0, which is not extracted"
        )
    return extended.get(_SPARSE_NAME, name), int(size)


def _size(kind: bytes, field: bytes, extended: dict[bytes, bytes]) -> int:
    if kind != FILE:
        return 0
    text = extended.get(b"size")
    if text is None:
        return _number(field)
    if _DECIMAL.fullmatch(text) is None:
        raise LayerError("the layer is not a tar archive: a size is not a number")
    return int(text)


def _number(field: bytes) -> int:
    """A number in octal digits or, if the first bit is set, in GNU's binary form."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise LayerError("the layer is not a tar archive: a field of a header is not a number")
    return int(match[1] or b"0", 8)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """The records that matter here; keys of other forms of sparse files count as one."""
    records = {}
    start = 0
    while start < len(data):
        match = _PAX_LENGTH.match(data, start)
        end = start + int(match[1]) if match else 0
        if match is None or end <= match.end() or data[end - 1 : end] != b"\n":
            raise _malformed()
        key, equals, value = data[match.end() : end - 1].partition(b"=")
        if not equals or (key in _NAMES and b"\0" in value):
            raise _malformed()
        if key.startswith(_SPARSE) and key not in _SPARSE_KEYS:
            key = _SPARSE
        if value and (key in _USED or key.startswith(_SPARSE)):
            records[key] = value
        start = end
    return records


def _too_long() -> LayerError:
    return LayerError(
        f"the layer has more than {EXTENSION_LIMIT} bytes of extended headers before one file"
    )


def _malformed() -> LayerError:
    return LayerError("the layer is not a tar archive: an extended header is malformed")


def shown(name: bytes) -> str:
    """A name for a message: quoted, on one line, and not too long."""
    text = name.decode(errors="backslashreplace")
    return repr(text if len(text) <= 200 else text[:200] + "...")
