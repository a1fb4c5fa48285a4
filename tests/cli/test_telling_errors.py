"""The line on standard error for one error."""

from __future__ import annotations

import pytest

from cachefs.cli.failing import tell
from cachefs.errors import CacheError
from cachefs.masking import mask_text

pytestmark = pytest.mark.timeout(60)


def test_causes_that_form_a_cycle_end(capsys: pytest.CaptureFixture[str]) -> None:
    error, first, second = CacheError("there is no name mian"), KeyError("a"), OSError("b")
    error.__cause__ = first
    first.__context__, second.__context__ = second, first
    tell(error)
    assert capsys.readouterr().err == "cachefs: error: there is no name mian\n"


def test_a_question_after_a_url_is_not_a_query() -> None:
    question = "did you mean s3://builds/demo/?"
    assert mask_text(question) == question
    assert mask_text("https://host/key?sig=hush") == "https://host/key?***"
