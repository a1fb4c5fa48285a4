"""The example builds a real library: cold, warm, changed, and from a second checkout over S3."""

from __future__ import annotations

import importlib.util
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.servers.s3 import S3Server

EXAMPLE = Path(__file__).parents[2] / "examples" / "c_library"

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture
def build() -> Any:
    spec = importlib.util.spec_from_file_location("example_build", EXAMPLE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build


def _checkout(path: Path) -> Path:
    shutil.copytree(EXAMPLE, path)
    return path


def _outcomes(report: Any) -> dict[str, str]:
    return {step.name: step.outcome for step in report.steps}


def test_cold_warm_and_changed(build: Any, tmp_path: Path) -> None:
    here, cache, into = _checkout(tmp_path / "here"), str(tmp_path / "cache"), tmp_path / "dist"
    cold = build(here, cache, into)
    assert set(_outcomes(cold).values()) == {"ran"}
    first = (into / "ring.tar").read_bytes()

    assert [step.fetched for step in build(here, cache, into).steps if step.fetched] == []
    (into / "ring.tar").unlink()
    warm = build(here, cache, into)
    assert set(_outcomes(warm).values()) <= {"hit", "not needed"}
    assert (into / "ring.tar").read_bytes() == first
    fetched = {step.name: step.fetched for step in warm.steps}
    assert [name for name, count in fetched.items() if count] == ["package"]

    # The object file stays the same, so nothing that depends on it runs.
    source = here / "src" / "sum.c"
    source.write_text(source.read_text() + "/* a comment */\n")
    commented = _outcomes(build(here, cache, into))
    assert [name for name, outcome in commented.items() if outcome == "ran"] == ["compile sum.c"]

    text = source.read_text().replace("return sum;", "return sum + (ring->added == 99);")
    source.write_text(text)
    changed = build(here, cache, into)
    ran = [name for name, outcome in _outcomes(changed).items() if outcome == "ran"]
    assert ran == ["compile sum.c", "archive", "test", "package"]
    why = {step.name: step.why for step in changed.steps}
    assert why["compile sum.c"] == ["input sum.c changed: its content changed"]


def test_a_second_checkout_shares_only_the_cache(
    build: Any, tmp_path: Path, moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = moto_s3.attributes(moto_s3.bucket())
    build(_checkout(tmp_path / "one"), cache, tmp_path / "first")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-machine"))
    report = build(_checkout(tmp_path / "two"), cache, tmp_path / "second")
    assert "ran" not in _outcomes(report).values()
    assert [step.name for step in report.steps if step.fetched] == ["package"]
    with tarfile.open(tmp_path / "second" / "ring.tar") as archive:
        assert "libring.a" in archive.getnames()
    assert (tmp_path / "first" / "ring.tar").read_bytes() == (
        tmp_path / "second" / "ring.tar"
    ).read_bytes()
