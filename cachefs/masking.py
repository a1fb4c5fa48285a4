"""Hiding secrets in text that people see: URLs, and values that are named as secrets."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "***"

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s\"'<>]+")
_PASSWORD: Final = re.compile(r"\A([^/:]*):.*@", re.DOTALL)
_USER: Final = re.compile(r"\A[^/?#]*@")
_HTTP: Final = ("http://", "https://")

# ``name=value`` where the name says that the value is a secret, as in attributes and signed URLs.
# A value of "..." is a message's placeholder.
_NAMED: Final = re.compile(
    r"""(?ix)
    (\b [\w.\-]* (?: secret | token | passw(?:or)?d | passphrase | signature | credential
                  | (?:api|access|account|shared)[_-]?key ) [\w.\-]*
     | \b (?: sig | pwd | auth | authorization ) )
    (\s* = \s*) (?! \.\.\. | \*\*\* ) [^\s,;&"'<>]+
    """
)


def mask_url(url: str) -> str:
    """Mask the password of a URL and its query, which may contain a signature.

    If it is unclear where a password ends, more is masked rather than less. The scheme may be
    missing, because errors also show mistyped URLs. The user of an HTTP URL is masked too: it is
    often a token.
    """
    found = _SCHEME.match(url)
    scheme = found[0] if found else ""
    rest = _PASSWORD.sub(rf"\1:{MASK}@", url[len(scheme) :])
    if scheme.lower() in _HTTP:
        rest = _USER.sub(f"{MASK}@", rest)
    plain, mark, query = rest.partition("?")
    return _mask_named(f"{scheme}{plain}{mark}{query and MASK}")


def mask_text(text: str) -> str:
    """Mask every URL in a text, such as the message of a library, and values named as secrets."""
    return _mask_named(_URL.sub(lambda found: mask_url(found[0]), text))


def _mask_named(text: str) -> str:
    return _NAMED.sub(rf"\1\2{MASK}", text)
