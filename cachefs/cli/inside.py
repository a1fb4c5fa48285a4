"""Options and arguments that say what is looked into: a name, and a result or a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import cachefs
from cachefs.cli.locations import LOCATION, NAME, default_location
from cachefs.cli.locations import named as found_name
from cachefs.cli.signing import signed_by_option, trusting
from cachefs.inside import results
from cachefs.inside.contents import Contents

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefs import Cache
    from cachefs.inside.results import Selected

_OPTIONS = (
    click.option(
        "--name",
        type=NAME,
        default="",
        metavar="NAME",
        help="Look into this name; by default the only one.",
    ),
    click.option(
        "--result",
        default="",
        metavar="RESULT",
        help="Which result of the name: 'newest', or the digest of a record or layer, or its "
        "first digits. By default the only one that nothing else was built on.",
    ),
    click.option(
        "--layer",
        default="",
        metavar="DIGEST",
        help="One layer alone: the digest of its blob, or its diffID, or the first digits.",
    ),
    signed_by_option,
)


def inside_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--name``, ``--result``, ``--layer`` and ``--signed-by``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def split_location(
    words: tuple[str, ...], signed_by: tuple[str, ...]
) -> tuple[Cache, tuple[str, ...]]:
    """The cache that the first word is the location of, if there are more, and the others."""
    context = click.get_current_context()
    if len(words) > 1:
        location, words = LOCATION.convert(words[0], None, context), words[1:]
    else:
        location = default_location(context)
    return cachefs.open(trusting(location, signed_by)), words


def selected(cache: Cache, name: str, result: str, layer: str) -> tuple[Selected, Contents]:
    """What the options mean, and its contents. Raises as :func:`cachefs.look_inside`."""
    meant = results.meant_name(cache, name)
    with found_name(cache, meant):
        found = results.select(cache, meant, result=result, layer=layer)
    return found, Contents(cache.layout, found.layers)


def described(found: Selected) -> dict[str, Any]:
    """What is looked into, for JSON."""
    return {
        "name": found.name,
        "layer" if found.alone else "result": found.result,
        "layers": [each.blob for each in found.layers],
    }
