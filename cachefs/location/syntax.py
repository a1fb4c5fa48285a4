"""The syntax of locations: splits what a user typed into attributes and their text.

There are three forms, distinguished by these rules:

1. Text that begins with ``protocol://`` is a URL: ``s3://bucket/ci``.
2. Text is in the builders' attribute form if its first field is a known attribute, or if one of its
   fields is ``type=``: ``type=s3,bucket=b,region=r``.
3. All other text is a path, and so is every ``os.PathLike``: ``./cache``, ``a=b/c,d``.

A URL or a path with a known attribute after a comma (``s3://bucket/ci,mode=max``) is refused; it
would otherwise silently become a folder of that name.

The attribute form is one CSV record by Go's rules: a field with a comma or a quote in it is quoted
as a whole (``"name=a,b"``), and quotes inside are doubled. Names are trimmed and case-insensitive.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cachefs.errors import LocationError
from cachefs.location.attributes import ATTRIBUTES, NAMES_KNOWN, TYPE, unknown
from cachefs.location.kinds import FOLDER, PATH

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")

_FIELD: Final = re.compile(r'(?:\A|,)"?\s*([A-Za-z][\w.\-]*)\s*=')
_CSV_FIELD: Final = r'(?:"(?:[^"]|"")*"|[^",\r\n]*)'
_RECORD: Final = re.compile(rf"{_CSV_FIELD}(?:,{_CSV_FIELD})*")
_SECRETS: Final = frozenset(attribute.name for attribute in ATTRIBUTES if attribute.secret)
_FREE: Final = frozenset(a.name for a in ATTRIBUTES if a.kind in {FOLDER, PATH})
"""Attributes whose values may contain ``name=`` of an attribute, unless that is a secret one."""


def _after_separator(names: Iterable[str]) -> re.Pattern[str]:
    """Finds one of these attributes after something that was typed for a comma."""
    return re.compile(rf"[;\s|&?,]\s*({'|'.join(map(re.escape, names))})\s*=", re.IGNORECASE)


_ANY_INSIDE: Final = _after_separator(NAMES_KNOWN)
_SECRET_INSIDE: Final = _after_separator(_SECRETS)


def in_attribute_form(text: str | os.PathLike[str]) -> bool:
    """Whether this is the builders' form, ``key=value,...``, and not a URL or a path.

    Raises LocationError for a mixture of both, and for a URL or path with a secret in it.
    """
    if not isinstance(text, str):
        return False
    fields = [name.lower() for name in _FIELD.findall(text)]
    known = [name for name in fields if name in NAMES_KNOWN]
    first = _FIELD.match(text)
    is_url = URL.match(text) is not None
    if not is_url and ("type" in fields or (first and first[1].lower() in NAMES_KNOWN)):
        return True
    if known:
        raise LocationError(
            f"{known[0]}= follows text that is not an attribute: write type=fsspec,url=... and "
            f'then {known[0]}=..., or type=fsspec,"url=..." for a folder with a comma in its name'
        )
    if (secret := _SECRET_INSIDE.search(text)) is not None:
        raise LocationError(
            f"{secret[1]}= is inside a URL or path: separate attributes with commas only, as in "
            "type=s3,bucket=...,access_key_id=..."
        )
    return False


def read_attributes(text: str) -> dict[str, str]:
    """Read text in attribute form, by name. Raises LocationError, which shows no value."""
    pairs = [_pair(number, field) for number, field in enumerate(_fields(text), 1)]
    for name, value in pairs:
        _require_one(name, value)
    if (type_ := dict(pairs).get("type")) is not None:
        TYPE.read(type_)  # first, because each type has different attributes
    settings: dict[str, str] = {}
    for number, (name, value) in enumerate(pairs, 1):
        if name not in NAMES_KNOWN:
            raise unknown(name, f"field {number}", show=_SECRETS.isdisjoint(settings))
        if name in settings:
            raise LocationError(f"{name} is given twice")
        settings[name] = value
    return settings


def _pair(number: int, field: str) -> tuple[str, str]:
    name, equals, value = field.partition("=")
    if not equals:
        raise LocationError(
            f"field {number} is not key=value: if it belongs to the field before it, quote "
            'both as a whole, as in "name=a,b"'
        )
    return name.strip().lower(), value


def _require_one(name: str, value: str) -> None:
    """Raise LocationError if the value contains another attribute. Shows no value."""
    inside = (_SECRET_INSIDE if name in _FREE else _ANY_INSIDE).search(value)
    if inside is not None and name in NAMES_KNOWN:
        raise LocationError(
            f"the value of {name} contains {inside[1]}=: separate attributes with commas, not with "
            "spaces or semicolons alone"
        )


def read_keywords(keywords: Mapping[str, object]) -> dict[str, object]:
    """Rename Python keywords to attributes, without those that are None. Raises LocationError."""
    names = {attribute.keyword: attribute.name for attribute in ATTRIBUTES}
    for keyword in keywords:
        if keyword not in names:
            raise unknown(keyword, "a keyword")
    return {names[keyword]: value for keyword, value in keywords.items() if value is not None}


def _fields(text: str) -> list[str]:
    import csv  # noqa: PLC0415 - paths and URLs need none

    if _RECORD.fullmatch(text):
        try:
            return next(csv.reader([text], strict=True))
        except csv.Error:
            pass  # a field is longer than the csv module allows
    raise LocationError(
        "the attributes are not one CSV record: quote a field with a comma or a quote in it as a "
        'whole, as in "name=a,b", and double the quotes inside it'
    )
