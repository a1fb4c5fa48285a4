"""The line on standard error for one error."""

from __future__ import annotations

import pytest

from cachefs.cli.failing import tell
from cachefs.errors import CacheError

pytestmark = pytest.mark.timeout(60)


def test_causes_that_form_a_cycle_end(capsys: pytest.CaptureFixture[str]) -> None:
    error, first, second = CacheError("there is no name mian"), KeyError("a"), OSError("b")
    error.__cause__ = first
    first.__context__, second.__context__ = second, first
    tell(error)
    assert capsys.readouterr().err == "cachefs: error: there is no name mian\n"
