# ruff: noqa: INP001, T201 - a script that prints
"""Build, test and package a small C library with every step cached.

    python examples/c_library/build.py --cache s3://bucket/ci/ --into dist

Each source file has its own step, so that a change compiles one file. A change that leaves the
object file as it was, such as one in a comment, runs no other step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cachefs

HERE = Path(__file__).parent
COMPILE = ["cc", "-std=c11", "-O2", "-g0", "-Wall", "-Iinclude"]


def build(here: Path, cache: str, into: Path, *, jobs: int | None = None) -> cachefs.BuildReport:
    """Build the library of a checkout, and put ``ring.tar`` into a directory."""
    with cachefs.Build(cache_to=cache, mode="max", jobs=jobs) as builder:
        include = builder.source(here / "include")
        objects = {}
        for file in sorted((here / "src").glob("*.c")):
            made = f"{file.stem}.o"
            objects[made] = builder.step(
                [*COMPILE, "-c", file.name, "-o", made],
                inputs={"include": include, file.name: builder.source(file)},
                outputs=[made],
                env=["CFLAGS"],
                platform=True,
                name=f"compile {file.name}",
            )
        library = builder.step(
            ["ar", "rcsD", "libring.a", *objects],
            inputs={made: step / made for made, step in objects.items()},
            outputs=["libring.a"],
            platform=True,
            name="archive",
        )
        tested = builder.step(
            ["sh", "-c", f"{' '.join(COMPILE)} test.c libring.a -o test && ./test > passed"],
            inputs={
                "include": include,
                "test.c": builder.source(here / "tests" / "test_ring.c"),
                "libring.a": library / "libring.a",
            },
            outputs=["passed"],
            platform=True,
            name="test",
        )
        package = builder.step(
            ["tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cf", "ring.tar",
             "libring.a", "include", "passed"],
            inputs={
                "include": include,
                "libring.a": library / "libring.a",
                "passed": tested / "passed",
            },
            outputs=["ring.tar"],
            name="package",
        )  # fmt: skip
        package.restore(into)
    return builder.report


def main() -> None:
    """Build with the options of the command line, and print what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", required=True, help="the location of the cache")
    parser.add_argument(
        "--into", type=Path, default=Path("dist"), help="the directory that ring.tar is put into"
    )
    options = parser.parse_args()
    report = build(HERE, options.cache, options.into)
    for step in report.steps:
        print(f"{step.name:18} {step.outcome:11} {step.seconds:5.2f} s  {'; '.join(step.why)}")


if __name__ == "__main__":
    main()
