"""Types of attribute values: each converts the text of builders, or the equivalent Python value.

A value that is not valid is a ValueError. Its message continues a sentence that begins with the
attribute, and never repeats the value: ``is not a boolean: write true or false``.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from cachefs.digest import Digest
from cachefs.errors import DigestError, LocationError
from cachefs.location.masking import Secret
from cachefs.location.reference import Reference, parse_reference
from cachefs.masking import MASK, mask_url

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of an attribute's values.

    Attributes:
        words: a description of the values, for the reference page.
        python: the annotation of the Python values.
        read: converts text or a Python value. Returns None for text that means "not set".
    """

    words: str
    python: str
    read: Callable[[object], Any]


_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}")
_BUCKET: Final = re.compile(r"[A-Za-z0-9$][\w.\-]*|arn:[\w:/\-]+", re.ASCII)
_HTTP: Final = re.compile(r"https?://(?:[\w.\-]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?(?:[/?].*)?", re.ASCII)
_KEY: Final = re.compile(r"(?:ssh|ecdsa)-[a-z0-9-]+ ")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SECOND: Final = re.compile(
    r"(=\s*|[;\s|&]\s*[\w.\-]*(?:secret|token|passw|key|sig|cred)[\w.\-]*\s*[:\s]\s*)\S.*",
    re.DOTALL | re.IGNORECASE,
)
"""The value of a second attribute within a value."""

_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
_FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")


def quoted(value: object) -> str:
    """Format a value for an error message: short, on one line, without secrets.

    What follows an ``=`` is masked: it may be the value of another attribute, because a comma was
    mistyped.
    """
    if isinstance(value, str | os.PathLike):
        shown = _SECOND.sub(rf"\1{MASK}", mask_url(os.fsdecode(value)))
        return f'"{repr(shown[:80])[1:-1]}"'
    small = isinstance(value, float) or (isinstance(value, int) and abs(value) < _LONGEST)
    return repr(value) if small else type(value).__name__


# The units of Go, in nanoseconds; with both characters for micro.
_UNITS: Final = {
    "ns": 1,
    "us": 1e3,
    "µs": 1e3,
    "μs": 1e3,
    "ms": 1e6,
    "s": 1e9,
    "m": 6e10,
    "h": 3.6e12,
}
_TERM: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION: Final = re.compile(rf"[+-]?(?:0|(?:{_TERM.pattern})+)")
_LONGEST: Final = 2**63
"""Nanoseconds: Go's durations are shorter than this."""


def parse_duration(text: str) -> float:
    """Convert a Go duration, such as ``1h30m`` or ``0``, to seconds. Raises LocationError."""
    try:
        return _go_duration(text)
    except ValueError as error:
        raise LocationError(f"{quoted(text)} {error}") from None


def _go_duration(text: str) -> float:
    if not _DURATION.fullmatch(text):
        raise ValueError("is not a duration: write for example 24h, 90m or 1h30m")
    nanoseconds = sum(float(number) * _UNITS[unit] for number, unit in _TERM.findall(text))
    if nanoseconds >= _LONGEST:
        raise ValueError("is too long a duration: it must be less than 292 years")
    return -nanoseconds / 1e9 if text.startswith("-") else nanoseconds / 1e9


_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)\s*(?:([KMGTP])(I)?)?(B)?", re.IGNORECASE)


_SLOWEST: Final = 1024
"""Bytes per second below which a rate is a mistake, such as a forgotten unit."""


def parse_size(text: str) -> int:
    """Bytes, given as ``500MB``, ``10GiB`` or ``5T``; only ``kB``, ``MB`` and so on are decimal.

    Raises LocationError.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise LocationError(f"{quoted(text)} is not a valid size: write for example 500MB or 10GiB")
    number, unit, binary, with_b = found.groups()
    base = 1000 if with_b and not binary else 1024
    return int(float(number) * base ** ("KMGTP".index(unit.upper()) + 1 if unit else 0))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not text")  # noqa: TRY004 - here all errors are ValueErrors
    if _CONTROL.search(value):
        raise ValueError("has a control character, such as a line break at its end: remove it")
    return value


def _filled(value: object) -> str:
    if not _text(value):
        raise ValueError("is empty")
    return _text(value)


def _path(value: object) -> str | os.PathLike[str]:
    if isinstance(value, os.PathLike):
        _filled(os.fsdecode(value))
        return value
    return _filled(value)


def _file(value: object) -> str:
    """An absolute path, because a project's paths are relative to its file."""
    path = os.path.expanduser(os.fsdecode(_path(value)))  # noqa: PTH111 - lexical
    return os.path.abspath(path)  # noqa: PTH100 - lexical


def _keys(value: object) -> tuple[str, ...]:
    """Lines of public keys, and absolute paths of files with them."""
    if isinstance(value, str | os.PathLike):
        parts: list[object] = list(value.split(";")) if isinstance(value, str) else [value]
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        raise ValueError("is neither a key or file nor a list of them")  # noqa: TRY004
    return tuple(dict.fromkeys(_key(part) for part in parts))


def _key(part: object) -> str:
    is_line = isinstance(part, str) and _KEY.match(part)
    return _filled(part).strip() if is_line else _file(part)


def _secret(value: object) -> Secret | None:
    text = _text(value.reveal() if isinstance(value, Secret) else value)
    return Secret(text) if text else None


def _bucket(value: object) -> str:
    text = _filled(value)
    if not _BUCKET.fullmatch(text) or "::" in text:
        raise ValueError(
            "is not a bucket or container: give its name alone, and a folder as prefix"
        )
    return text


def _http(value: object) -> str | None:
    text = _text(value)
    if text and "://" not in text:
        raise ValueError("lacks http:// or https:// before it: write for example https://host:9000")
    if text and not _HTTP.fullmatch(text):
        raise ValueError(
            "is not a URL of a server: write for example https://host:9000, without credentials"
        )
    return text or None


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value not in _TRUE + _FALSE:
        raise ValueError("is not a boolean: write true or false")
    return value in _TRUE


def _whole(value: object) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("is not a whole number: write for example 4")


def _count(value: object) -> int:
    if (number := _whole(value)) < 1:
        raise ValueError("is not enough: write 1 or more")
    return number


def _seconds(value: object) -> float:
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        seconds = _go_duration(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) < _LONGEST else math.inf
    else:
        raise ValueError("is not a duration: give text such as 24h, seconds or a timedelta")  # noqa: TRY004
    if not 0 <= seconds < math.inf:
        raise ValueError("is not an age: write 0s or more")
    return seconds


def _wait(value: object) -> float:
    seconds = _seconds(value)
    if seconds == 0:
        raise ValueError("is no time at all: write for example 30s")
    return seconds


def _rate(value: object) -> int:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError("is no number of bytes: write for example 10MiB")  # noqa: TRY004 - here all errors are ValueErrors
    try:
        rate = parse_size(value) if isinstance(value, str) else value
    except LocationError:
        raise ValueError("is no number of bytes: write for example 10MiB") from None
    if rate < _SLOWEST:
        raise ValueError("is too slow: it must be at least 1KiB")
    return rate


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        names = tuple(value.split(";"))
    elif isinstance(value, list | tuple) and value and all(isinstance(n, str) for n in value):
        names = tuple(value)
    else:
        raise ValueError("is neither a name nor a list of names: give one or more")
    if any(";" in name for name in names):
        raise ValueError(
            "has a name with ';' in it, which builders read as two names: use another character"
        )
    return tuple(dict.fromkeys(names))


def _digest(value: object) -> str:
    try:
        return Digest(_text(value))
    except DigestError:
        raise ValueError("is not 'sha256:' and 64 lower-case hexadecimal digits") from None


def _reference(value: object) -> Reference:
    return value if isinstance(value, Reference) else parse_reference(_filled(value))


def _compression(value: object) -> str:
    if value == "estargz":
        raise ValueError("is not supported: write gzip, zstd or uncompressed")
    return _COMPRESSIONS.read(value)  # type: ignore[no-any-return]


def _reset(value: object) -> bool:
    if _flag(value):
        raise ValueError("would delete blobs that other exports need: run `cachefs prune` instead")
    return False


def one_of(*choices: str) -> Kind:
    """Make the type of a text that is one of these."""
    words = f"{', '.join(choices[:-1])} or {choices[-1]}"

    def read(value: object) -> str:
        if value not in choices:
            raise ValueError(f"is unknown: write {words}")
        return str(value)

    literal = ", ".join(f'"{choice}"' for choice in choices)
    return Kind(words, f"Literal[{literal}]", read)


_COMPRESSIONS: Final = one_of("gzip", "zstd", "uncompressed")

TEXT: Final = Kind("text", "str", _text)
FILLED: Final = Kind("text", "str", _filled)
SECRET: Final = Kind("secret text", "str | Secret", _secret)
BUCKET: Final = Kind("text", "str", _bucket)
HTTP: Final = Kind("URL", "str", _http)
PATH: Final = Kind("path", "str | os.PathLike[str]", _path)
FOLDER: Final = Kind("URL or path", "str | os.PathLike[str]", _path)
NAME: Final = Kind("name", "str", lambda value: (_filled(value),))
FILE: Final = Kind("path", "str | os.PathLike[str]", _file)
KEYS: Final = Kind(
    "public keys or paths, separated by ;",
    "str | os.PathLike[str] | list[str] | tuple[str, ...]",
    _keys,
)
NAMES: Final = Kind("names, separated by ;", "str | list[str] | tuple[str, ...]", _names)
FLAG: Final = Kind("boolean", "bool", _flag)
LEVEL: Final = Kind("whole number", "int", _whole)
COUNT: Final = Kind("whole number, 1 or more", "int", _count)
DURATION: Final = Kind("duration", "str | float | timedelta", _seconds)
WAIT: Final = Kind("duration, more than 0", "str | float | timedelta", _wait)
RATE: Final = Kind("bytes per second, such as 10MiB", "str | int", _rate)
REFERENCE: Final = Kind("host/repository:tag", "str", _reference)
DIGEST: Final = Kind("digest", "str", _digest)
COMPRESSION: Final = replace(_COMPRESSIONS, read=_compression)
RESET: Final = Kind("false", "bool", _reset)
