"""The line on standard error for one error, and the causes that --verbose logs."""

from __future__ import annotations

import logging

import pytest

from cachefs.cli.failing import tell
from cachefs.errors import NotFoundError
from cachefs.masking import mask_text


@pytest.mark.parametrize("with_error", [True, False])
def test_a_circle_of_causes_ends(
    with_error: bool, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    error = NotFoundError("there is no name nope")
    first, second = FileNotFoundError(), TimeoutError()
    error.__cause__ = first
    first.__context__ = second
    second.__context__ = error if with_error else first
    with caplog.at_level(logging.DEBUG, "cachefs"):
        tell(error)
    assert capsys.readouterr().err == "cachefs: error: there is no name nope\n"
    assert caplog.messages == [
        "caused by builtins.FileNotFoundError",
        "caused by builtins.TimeoutError",
    ]


def test_a_question_after_a_url_is_not_a_query() -> None:
    question = "did you mean s3://builds/demo/?"
    assert mask_text(question) == question
    assert mask_text("https://host/key?sig=hush") == "https://host/key?***"
