"""The keywords that editors complete are those that the parser accepts."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from cachefs.errors import LocationError
from cachefs.location.attributes import ATTRIBUTES
from cachefs.location.keywords import LocationKeywords
from cachefs.location.parsing import parse

DOCS = Path(__file__).parents[2] / "docs"


def test_the_keywords_are_what_the_table_gives() -> None:
    generator = runpy.run_path(str(DOCS / "generate_keywords.py"))
    written = generator["MODULE"].read_text()
    assert written == generator["module"](), "run: python docs/generate.py"


def test_each_attribute_has_its_keyword() -> None:
    assert set(LocationKeywords.__annotations__) == {row.keyword for row in ATTRIBUTES}
    assert LocationKeywords.__required_keys__ == frozenset()


def test_none_is_not_given_for_all_of_them() -> None:
    keywords = dict.fromkeys(LocationKeywords.__annotations__)
    assert parse("s3://bucket/", **keywords) == parse("s3://bucket/")
    with pytest.raises(LocationError, match="unknown attribute 'moode': did you mean mode"):
        parse("s3://bucket/", **{**keywords, "moode": None})
