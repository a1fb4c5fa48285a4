"""Builds, their steps and their report."""

from __future__ import annotations

from pathlib import Path
from typing import Never, assert_type

import cachefs


def compress(directory: Path) -> None:
    """A step may be a function."""
    (directory / "out").write_bytes((directory / "in").read_bytes())


with cachefs.Build(["s3://ci/branch/", Path("mirror")], "s3://ci/branch/", jobs=2) as build:
    assert_type(build, cachefs.Build)
    text = build.source("src", include=["*.c"], exclude=["*.o"])
    assert_type(text, cachefs.Source)
    assert_type(text / "include", cachefs.Part)
    objects = build.step(
        ["make"], inputs={"src": text, "h": text / "include" / "a.h"}, outputs=["a"], env=["CC"]
    )
    assert_type(objects, cachefs.Step)
    last = build.step(
        compress, inputs={"in": objects / "a"}, outputs=["out"], env={"LEVEL": "9"}, version="2"
    )
    assert_type(last.files(), dict[str, Path])
    last.restore("dist")

assert_type(build.report, cachefs.BuildReport)
assert_type(build.report.exports, list[cachefs.ExportReport])
assert_type(build.report.steps, list[cachefs.StepReport])
for step in build.report.steps:
    match step.outcome:
        case "hit" | "ran" | "not needed" | "would hit" | "would run":
            pass
        case other:
            assert_type(other, Never)

try:
    build.obtain(last)
except cachefs.StepError as error:
    assert_type(error.exit_code, int | None)
    assert_type(error.argv, tuple[str, ...])
except cachefs.NotFoundError as error:
    # Each error is also the one that Python's own functions raise for the same.
    assert_type(error.errno, int | None)
    not_found: FileNotFoundError = error
except cachefs.CacheError as error:
    assert_type(error.digest, str | None)
    assert_type(error.side, str | None)
