"""The rules that make a cache config valid, checked without recursion.

Each rule is stated once: it checks all values of one kind together, which is fast. Only if that
fails, the same check is made for one value at a time, to name the layer or record at fault.
"""

from __future__ import annotations

from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachefs.digest import all_digests
from cachefs.errors import ManifestError
from cachefs.wire.timestamps import all_timestamps
from cachefs.wire.walks import NO_ALTERNATIVES, in_order, link_targets, parents_first

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cachefs.wire.cacheconfig import Annotations, CacheConfig, Layer, Record


class _Rule(NamedTuple):
    """What must be true of all parts of one kind.

    Attributes:
        values: the values to check in these parts.
        valid: whether all the values are valid in this config.
        says: what is wrong with a value.
    """

    values: Callable[[Sequence[Any]], Collection[Any]]
    valid: Callable[[Collection[Any], CacheConfig], bool]
    says: Callable[[Any, CacheConfig], str]


class _Kind(NamedTuple):
    """Parts of one kind: the layer or record that has them, and their rules.

    Attributes:
        owner: ``"layer"`` or ``"record"``.
        parts: the parts of these layers or records.
        rules: what must be true of them.
    """

    owner: str
    parts: Callable[[Sequence[Any]], Sequence[Any]]
    rules: tuple[_Rule, ...]


def _annotations(layers: Sequence[Layer]) -> list[Annotations]:
    return [layer.annotations for layer in layers if layer.annotations is not None]


def _links(records: Sequence[Record]) -> list[int]:
    return list(chain.from_iterable(link_targets(records)))


def _each(name: str) -> Callable[[Sequence[Any]], list[Any]]:
    """This attribute of every part."""
    get = attrgetter(name)
    return lambda parts: list(map(get, parts))


def _all(name: str) -> Callable[[Sequence[Any]], list[Any]]:
    """The items of this attribute of every part, in one list."""
    get = attrgetter(name)
    return lambda parts: list(chain.from_iterable(map(get, parts)))


def _shown(number: int) -> str:
    """A number for a message. JSON may have numbers of thousands of digits."""
    return str(number) if -(2**63) <= number < 2**63 else "beyond 64 bits"


def _in_range(indexes: Collection[int], first: int, end: int) -> bool:
    return not indexes or (min(indexes) >= first and max(indexes) < end)


def _is_layer(indexes: Collection[int], config: CacheConfig) -> bool:
    return _in_range(indexes, 0, len(config.layers))


def _says_layer(index: int, config: CacheConfig) -> str:
    return f" names layer {_shown(index)} of {len(config.layers)} layers"


def _says_link(index: int, config: CacheConfig) -> str:
    if index == NO_ALTERNATIVES:
        return " has an input without alternatives"
    return f" links {_shown(index)} of {len(config.records)} records"


_TIME: Final = _Rule(
    lambda parts: set(map(attrgetter("created_at"), parts)),
    lambda texts, _: all_timestamps(texts),
    lambda text, _: f": {text[:40]!r} is not an RFC 3339 time",
)
_LINKS: Final = _Kind(
    "record",
    _links,
    (
        _Rule(
            lambda links: links,
            lambda links, config: _in_range(links, 0, len(config.records)),
            _says_link,
        ),
    ),
)
_KINDS: Final = (
    _Kind(
        "layer",
        lambda layers: layers,
        (
            _Rule(
                _each("blob"),
                lambda blobs, _: all_digests(list(blobs)),
                lambda blob, _: f": blob {blob[:80]!r} is not a SHA-256 digest in lower case",
            ),
            _Rule(
                _each("parent"),
                lambda parents, config: _in_range(parents, -1, len(config.layers)),
                lambda parent, config: (
                    f" has the parent {_shown(parent)} of {len(config.layers)} layers"
                ),
            ),
        ),
    ),
    _Kind(
        "layer",
        _annotations,
        (
            _Rule(
                _each("size"),
                lambda sizes, _: min(sizes, default=0) >= 0,
                lambda size, _: f" has the size {_shown(size)}",
            ),
            _TIME,
        ),
    ),
    _Kind("record", _all("layers"), (_Rule(_each("layer"), _is_layer, _says_layer), _TIME)),
    _Kind("record", _all("chains"), (_Rule(_all("layers"), _is_layer, _says_layer), _TIME)),
)


def check(config: CacheConfig) -> None:
    """Raise ManifestError, with the layer or record at fault, unless the config is valid."""
    targets = link_targets(config.records)
    links = list(chain.from_iterable(targets))
    check_values(config)
    _check_parts(_LINKS, links, config)
    parents_first(config.layers)
    in_order(targets, links)


def check_values(config: CacheConfig) -> None:
    """The same for a config that was made of valid ones, so that its links are known to be right.

    What users give (times, sizes) is checked.
    """
    for kind in _KINDS:
        _check_parts(kind, kind.parts(_owners(kind, config)), config)


def _owners(kind: _Kind, config: CacheConfig) -> Sequence[Layer] | Sequence[Record]:
    return config.layers if kind.owner == "layer" else config.records


def _check_parts(kind: _Kind, parts: Sequence[Any], config: CacheConfig) -> None:
    for rule in kind.rules:
        if not rule.valid(rule.values(parts), config):
            raise _fault(rule, kind, config)


def _fault(rule: _Rule, kind: _Kind, config: CacheConfig) -> ManifestError:
    """The error for the first layer or record that breaks the rule."""
    for index, owner in enumerate(_owners(kind, config)):
        for value in rule.values(kind.parts([owner])):
            if not rule.valid([value], config):
                return ManifestError(f"{kind.owner} {index}{rule.says(value, config)}")
    # No single value is at fault. The config is refused anyway.
    return ManifestError(f"the {kind.owner}s of the manifest are not valid together")
