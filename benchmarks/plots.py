"""Results as SVG: the same bytes for the same results, legible on light and dark pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import msgspec
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.results import Case, Results

GREY: Final = "#808890"
STYLE: Final[dict[str, Any]] = {
    "svg.hashsalt": "cachefs",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
# Visible on white and on black, and distinguishable by their markers without colours.
LOOKS: Final[tuple[dict[str, str], ...]] = (
    {"color": "#2f7fd8", "marker": "o"},
    {"color": "#d2691e", "marker": "s"},
    {"color": "#2f7fd8", "marker": "^", "linestyle": ":"},
    {"color": "#d2691e", "marker": "v", "linestyle": ":"},
)


def plot(results: Results, folder: Path) -> None:
    """Draw all plots into a directory."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for group, draw in PLOTS.items():
            figure = draw(results.of(group))
            FigureCanvasSVG(figure)
            about = {"Date": None, "Creator": None, "Description": results.mark(group)}
            path = folder / f"{group}.svg"
            figure.savefig(path, format="svg", transparent=True, metadata=about)


def _parallelism(cases: list[Case]) -> Figure:
    figure, (axes,) = _figure("throughput over parallelism", 1)
    _lines(axes, cases, lambda case: case.bytes / 2**20 / case.median())
    axes.set(xlabel="blobs at a time", ylabel="MiB/s", xscale="log", ylim=(0, None))
    _ticks(axes, cases)
    return figure


def _blobs(cases: list[Case]) -> Figure:
    figure, (left, right) = _figure("cost over the number of blobs", 2)
    _lines(left, cases, lambda case: case.median())
    left.set(xlabel="blobs of 4 KiB, uploaded", ylabel="seconds", xscale="log", yscale="log")
    _lines(right, cases, lambda case: case.median("requests"))
    right.set(xlabel="blobs of 4 KiB, uploaded", ylabel="requests", xscale="log", yscale="log")
    return figure


def _stores(cases: list[Case]) -> Figure:
    figure, (left, right) = _figure("an export of what is there, over the size of the store", 2)
    lines = [msgspec.structs.replace(case, tool=f"{case.work}, {case.tool}") for case in cases]
    _lines(left, lines, lambda case: case.median())
    left.set(xlabel="blobs in the store", ylabel="seconds", xscale="log", ylim=(0, None))
    _lines(right, lines, lambda case: case.median("requests"))
    right.set(xlabel="blobs in the store", ylabel="requests", xscale="log", ylim=(0, None))
    return figure


PLOTS: Final[dict[str, Callable[[list[Case]], Figure]]] = {
    "parallelism": _parallelism,
    "blobs": _blobs,
    "store": _stores,
}


def _figure(title: str, columns: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.6 * columns + 0.8, 3.6), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _lines(axes: Any, cases: list[Case], value: Callable[[Case], float | None]) -> None:
    """A line for each tool."""
    for index, tool in enumerate(dict.fromkeys(case.tool for case in cases)):
        points = [(case.point, value(case)) for case in cases if case.tool == tool]
        known = sorted((x, y) for x, y in points if x is not None and y is not None)
        if known:
            axes.plot(*zip(*known, strict=True), label=tool, markersize=4.5, **LOOKS[index % 4])
    axes.legend(fontsize="x-small", labelcolor=GREY)


def _ticks(axes: Any, cases: list[Case]) -> None:
    """Label each parallelism with its number instead of powers of ten."""
    points = sorted({case.point for case in cases if case.point is not None})
    axes.set_xticks(points, [str(point) for point in points])
    axes.minorticks_off()
