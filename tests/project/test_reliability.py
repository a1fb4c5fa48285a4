"""The page on reliability names tests that there are, and limits as they are in the code."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import Final

import pytest

from cachefs import graph, store
from cachefs.building import log
from cachefs.concurrency import LOOKUP_PARALLELISM
from cachefs.layers import compression, tarformat
from cachefs.layers.limits import DEFAULT_LIMITS
from cachefs.layout import oci_index
from cachefs.operations import describe
from cachefs.wire import bounds, description, joining

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "reliability.md").read_text()


def table(heading: str) -> list[list[str]]:
    """The rows of the first table after a heading, without the first two lines."""
    after = PAGE.partition(f"# {heading}\n")[2]
    lines = re.findall(r"(?:^\|.*\|\n)+", after, re.MULTILINE)[0].splitlines()
    return [[cell.strip() for cell in line[1:-1].split(" | ")] for line in lines[2:]]


def test_every_promise_names_tests_that_there_are() -> None:
    rows = table("Reliability")
    assert len(rows) >= 20
    for promise, _, proof in rows:
        named = re.findall(r"`(tests/[^`]+)`", proof)
        assert named, promise
        for path in named:
            files = [ROOT / path] if path.endswith(".py") else (ROOT / path).glob("test_*.py")
            tests = list(chain.from_iterable(_tests(file) for file in files))
            # Helpers are named beside tests, not instead of them.
            assert tests or ((ROOT / path).is_file() and len(named) > 1), path


def _tests(file: Path) -> list[str]:
    return re.findall(r"^(?:async )?def test_\w+", file.read_text(), re.MULTILINE)


def mebibytes(count: int) -> str:
    return f"{count // 1024**2:,} MiB"


LIMITS: Final = {
    "a manifest": [
        f"{bounds.MAX_RECORDS:,} records",
        f"{bounds.max_bytes(1)} bytes for each",
        f"{bounds._VALUES} JSON values",
    ],
    "many manifests": [
        f"{LOOKUP_PARALLELISM} at a time",
        mebibytes(store.TOGETHER),
    ],
    "`index.json` or an image manifest of `type=local`": [mebibytes(oci_index.LIMIT)],
    "extended headers before one file of a layer": [mebibytes(tarformat.EXTENSION_LIMIT)],
    "a layer's zstd window": [mebibytes(compression.ZSTD_WINDOW)],
    "the layers of a result, extracted": [
        f"{DEFAULT_LIMITS.max_bytes // 1024**3} GiB",
        f"{DEFAULT_LIMITS.max_layers} layers",
        f"{DEFAULT_LIMITS.max_entries:,} entries",
        f"{DEFAULT_LIMITS.max_path} bytes",
        f"{DEFAULT_LIMITS.max_depth} levels",
        f"{DEFAULT_LIMITS.max_ratio} times",
        f"beyond {DEFAULT_LIMITS.ratio_from // 1024**3} GiB",
    ],
    "results of the records that match a step": [f"{graph.MOST_LAYERS:,} layers"],
    "descriptions of results": [
        f"{mebibytes(description.MAX_BYTES)} each",
        f"{mebibytes(describe.MOST_BYTES)} in all",
    ],
    "records that a merge joins": [
        f"{joining._EACH} steps for each record",
        f"{joining._ALWAYS:,} besides",
    ],
    "the log of a command": [f"{log._READ_SIZE // 1024} KiB"],
}


@pytest.mark.parametrize("what", LIMITS)
def test_the_table_of_limits_says_what_the_code_does(what: str) -> None:
    (limit,) = (row[1] for row in table("Limits") if row[0] == what)
    for value in LIMITS[what]:
        assert value in limit


def test_every_limit_with_a_number_is_compared_with_the_code() -> None:
    """But for the memory of a name, which a test of extraction measures, and Go's integers."""
    measured = {"names of the upper layers of a result", "a number of bytes in a manifest"}
    numbers = {row[0] for row in table("Limits") if re.search(r"\d", row[1])}
    assert numbers - measured == set(LIMITS)
