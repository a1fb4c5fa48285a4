"""The order in which names are listed: natural, or by a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from cachefs.location.keys import natural_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")


def sort_option(*orders: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option ``--sort``, as the keyword ``order``."""
    return click.option(
        "--sort",
        "order",
        type=click.Choice(["name", *orders]),
        metavar="ORDER",
        help=f"By name, {', '.join(orders[:-1])} or {orders[-1]}. By default in the order of "
        "--name, or else by name, with numbers in them in their order.",
    )


def ordered(
    items: Sequence[T],
    order: str | None,
    name: Callable[[T], str],
    figures: Mapping[str, Callable[[T], float]],
    *,
    given: bool,
) -> list[T]:
    """The items in an order; equal ones, and all if there is no order, by name.

    Args:
        items: what to order.
        order: ``name`` or a key of ``figures``; None for the default.
        name: the name of an item.
        figures: the figures of an item, of which the greatest comes first.
        given: whether somebody gave the items in their order, which then is the default.
    """
    if order is None and given:
        return list(items)
    by_name = sorted(items, key=lambda item: natural_order(name(item)))
    figure = figures.get(order or "name")
    return by_name if figure is None else sorted(by_name, key=figure, reverse=True)
