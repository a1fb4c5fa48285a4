"""What a user typed as a location, taken apart into attributes and their text.

Three forms, told apart by this rule alone:

1. Text that begins with ``protocol://`` is a URL: ``s3://bucket/ci``.
2. Text is in the builders' attribute form when its first field is a known attribute, or when any of
   its fields is ``type=``: ``type=s3,bucket=b,region=r``.
3. All other text is a path, and so is every ``os.PathLike``: ``./cache``, ``a=b/c,d``.

A URL or a path with a known attribute after a comma (``s3://bucket/ci,mode=max``) is refused, for
it would otherwise quietly become a folder of that name.

The attribute form is one CSV record by Go's rules: a field with a comma or a quote in it is quoted
as a whole (``"name=a,b"``), quotes inside are doubled, names are trimmed and in any case.
"""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, Final

from cachefs.errors import LocationError
from cachefs.location.attributes import ATTRIBUTES, NAMES_KNOWN, TYPE, unknown

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")

_FIELD: Final = re.compile(r'(?:\A|,)"?\s*([A-Za-z][\w.\-]*)\s*=')
_CSV_FIELD: Final = r'(?:"(?:[^"]|"")*"|[^",\r\n]*)'
_RECORD: Final = re.compile(rf"{_CSV_FIELD}(?:,{_CSV_FIELD})*")
_SECRETS: Final = frozenset(attribute.name for attribute in ATTRIBUTES if attribute.secret)


def in_attribute_form(text: str | os.PathLike[str]) -> bool:
    """Whether this is the builders' form, ``key=value,...``, and not a URL or a path.

    Raises LocationError for what is neither one nor the other.
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
            f"{known[0]}= follows what is no attribute: write type=fsspec,url=... and then "
            f'{known[0]}=..., or type=fsspec,"url=..." for a folder with a comma in its name'
        )
    return False


def read_attributes(text: str) -> dict[str, str]:
    """The attributes of text in attribute form, by name. Raises LocationError; shows no value."""
    pairs = [_pair(number, field) for number, field in enumerate(_fields(text), 1)]
    if (type_ := dict(pairs).get("type")) is not None:
        TYPE.read(type_)  # first, for another type has other attributes
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
            f"field {number} is not key=value: where it belongs to the one before it, quote "
            'that as a whole, as in "name=a,b"'
        )
    return name.strip().lower(), value


def read_keywords(keywords: Mapping[str, object]) -> dict[str, object]:
    """Python keywords by attribute name; those that are None are not set. Raises LocationError."""
    names = {attribute.keyword: attribute.name for attribute in ATTRIBUTES}
    for keyword in keywords:
        if keyword not in names:
            raise unknown(keyword, "a keyword")
    return {names[keyword]: value for keyword, value in keywords.items() if value is not None}


def _fields(text: str) -> list[str]:
    if _RECORD.fullmatch(text):
        try:
            return next(csv.reader([text], strict=True))
        except csv.Error:
            pass  # a field that is longer than the csv module takes
    raise LocationError(
        "the attributes are not one CSV record: quote a field with a comma or a quote in it as a "
        'whole, as in "name=a,b", and double the quotes inside it'
    )
