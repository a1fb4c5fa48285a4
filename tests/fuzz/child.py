"""One target under atheris: ``python -m tests.fuzz.child TARGET`` and arguments of libFuzzer."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["cachefs"]):
    from tests.fuzz.targets import TARGETS

target = sys.argv.pop(1)
atheris.Setup(sys.argv, TARGETS[target])
atheris.Fuzz()
