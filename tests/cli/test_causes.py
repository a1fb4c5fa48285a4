"""Errors whose causes form a circle are told once, and the program ends."""

from __future__ import annotations

import logging

import pytest

from cachefs.cli.failing import tell
from cachefs.errors import NotFoundError


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
