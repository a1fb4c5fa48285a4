"""Every input that fuzzing has kept, because it reaches other code or once caused a crash."""

from __future__ import annotations

import pytest

from tests.fuzz.corpus import kept
from tests.fuzz.targets import SEEDS, TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_kept_inputs_are_accepted_or_refused(target: str) -> None:
    inputs = kept(target)
    assert len(inputs) > len(SEEDS[target])
    for data in inputs:
        TARGETS[target](data)
