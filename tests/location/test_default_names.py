"""The name that is used if none is given: the content of the location decides."""

from __future__ import annotations

from pathlib import Path

import pytest

import cachefs
from cachefs.location.options import Location


@pytest.mark.parametrize(("kind", "expected"), [("oci", "latest"), ("keyed", "buildkit")])
def test_a_directorys_layout_decides(kind: str, expected: str, tmp_path: Path) -> None:
    text = f"type=local,dest={tmp_path}" if kind == "oci" else str(tmp_path)
    cachefs.open(text).export(cachefs.RecordGraph(), {})
    by_path = cachefs.open(tmp_path)
    assert by_path.default_names == (expected,)
    assert [name.name for name in by_path.names()] == [expected]
    # The location alone does not determine it: only the cache does.
    assert not hasattr(Location, "default_names")


def test_the_names_that_are_given_come_first(tmp_path: Path) -> None:
    assert cachefs.open(tmp_path, name=["a", "b"]).default_names == ("a", "b")
    assert cachefs.open("s3://bucket/").default_names == ("buildkit",)
    assert cachefs.open("type=local,src=/nowhere").default_names == ("latest",)
