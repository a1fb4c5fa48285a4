"""Hiding secrets in text that people see: URLs, and values that are named as secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK: Final = "***"

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s\"'<>]+")
# The digest of an image's reference, host:port/name@sha256:..., follows no password.
_PASSWORD: Final = re.compile(r"\A([^/:]*):.*@(?!sha256:[0-9a-f]+\Z)", re.DOTALL)
_USER: Final = re.compile(r"\A[^/?#]*@")
_HTTP: Final = ("http://", "https://")

# ``name=value`` where the name says that the value is a secret, as in attributes and signed URLs.
# A value of "..." is a message's placeholder, and a colon before a space is its punctuation.
_NAMED: Final = re.compile(
    r"""(?ix)
    (\b [\w.\-]* (?: secret | token | passw(?:or)?d | passphrase | signature | credential
                  | (?:api|access|account|shared)[_-]?key ) [\w.\-]*
     | \b (?: sig | pwd | auth | authorization ) )
    (\s* = \s*) (?! \.\.\. | \*\*\* | :\s ) [^\s,;&"'<>]+
    """
)

# What names its value by what is before it: an option, or a header.
_BEFORE: Final = re.compile(
    r"""(?ix)
    ( (?<![\w.\-]) --? [\w\-]* (?: secret | token | passw(?:or)?d | passphrase | credential
                                 | (?:api|access|account|shared)[_-]?key ) s? \s+
    | authorization \s* : \s* (?: (?: basic | bearer | token ) \s+ )?
    | \b [\w\-]* (?: api-?key | token | secret ) \s* : \s* )
    (?! - ) [^\s"']+
    """
)
_SECRET_OPTION: Final = re.compile(
    r"(?i)--?[\w\-]*(?:secret|token|passw(?:or)?d|passphrase|credential"
    r"|(?:api|access|account|shared)[_-]?key)s?"
)

# Tokens that say themselves what they are, by how they begin or end, and random text.
_TOKEN: Final = re.compile(
    r"""(?x)
    (?<![\w/.\-])
    (?: gh[a-z]_\w{8,} | github_pat_\w{8,} | glpat-[\w\-]{8,} | xox[a-z]-[\w\-]{8,} | sk-[\w\-]{8,}
      | (?:AKIA|ASIA)[A-Z0-9]{12,} | eyJ[\w\-]{8,}\.[\w\-.]+
      | (?= \S*[a-z]) (?= \S*[A-Z]) (?= \S*[0-9]) [A-Za-z0-9+_=\-]{32,} )
    (?![\w/.])
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
    # A mark without a query ends a message's question.
    return _mask_named(f"{scheme}{plain}{mark}{MASK if query else ''}")


def mask_text(text: str) -> str:
    """Mask every URL in a text, such as the message of a library, and values named as secrets."""
    return _mask_named(_URL.sub(lambda found: mask_url(found[0]), text))


def mask_words(words: Iterable[str]) -> list[str]:
    """The words of a command, in which everything that looks like a secret is masked.

    That is what :func:`mask_text` masks, values of options and headers that are named as secrets,
    and text that looks like a token.
    """
    masked = []
    before = ""
    for word in words:
        is_value = _SECRET_OPTION.fullmatch(before) and not word.startswith("-")
        masked.append(MASK if is_value else _mask_word(word))
        before = word
    return masked


def _mask_word(word: str) -> str:
    return _TOKEN.sub(MASK, _BEFORE.sub(rf"\1{MASK}", mask_text(word)))


def _mask_named(text: str) -> str:
    return _NAMED.sub(rf"\1\2{MASK}", text)
