"""``--metrics``: what Prometheus's own parser reads from the file."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families as families

import cachefs
from cachefs.cli.main import program


@pytest.fixture
def place(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(recorded / "s3" / "max", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(program, [*arguments, "--metrics", "m.prom"], standalone_mode=False)


def figures(place: Path) -> dict[str, float]:
    """The value of each sample; all of them are of the one cache."""
    read = {}
    for family in families((place / "m.prom").read_text()):
        for sample in family.samples:
            assert sample.labels.pop("cache") == f"{place}/cache/"
            read[":".join([sample.name, *sample.labels.values()])] = sample.value
    return read


def test_usage(place: Path) -> None:
    assert call("du", "cache").exception is None
    usage = cachefs.open("cache").usage()
    found = figures(place)
    assert found["cachefs_du_names"] == len(usage.names) > 0
    assert found["cachefs_du_unreadable_names"] == 0
    assert found["cachefs_du_stored_bytes"] == usage.stored.bytes > 0
    assert found["cachefs_du_referenced_blobs"] == usage.referenced.blobs > 0
    assert found["cachefs_du_oldest_blob_timestamp_seconds"] == usage.oldest
    assert abs(found["cachefs_du_timestamp_seconds"] - time.time()) < 600


def test_faults_of_each_kind_also_of_those_that_are_none(place: Path) -> None:
    blobs = sorted((place / "cache" / "blobs").iterdir())
    blobs[0].unlink()
    size = blobs[1].stat().st_size
    blobs[1].write_bytes(b"x" * size)
    call("verify", "cache", "--read-data")
    found = figures(place)
    faults = {key: value for key, value in found.items() if "_faults" in key}
    assert faults == {
        f"cachefs_verify_faults:{kind}": float(kind in {"missing", "damaged"})
        for kind in ("manifest", "refused", "missing", "archived", "damaged", "size")
    }
    assert found["cachefs_verify_read_bytes"] > 0


def test_a_prune(place: Path) -> None:
    names = len(list(cachefs.open("cache").names()))
    assert call("prune", "cache", "--yes").exception is None
    nothing = figures(place)
    assert (nothing["cachefs_prune_removed_names"], nothing["cachefs_prune_kept_names"]) == (
        0,
        names,
    )
    call("prune", "cache", "--older-than", "0s", "--grace", "0s", "--yes")
    found = figures(place)
    assert (found["cachefs_prune_removed_names"], found["cachefs_prune_kept_names"]) == (names, 0)
    assert found["cachefs_prune_deleted_bytes"] == nothing["cachefs_prune_kept_bytes"] > 0


def test_a_plan_alone_writes_nothing(place: Path) -> None:
    assert call("prune", "cache", "--dry-run").exception is None
    assert not (place / "m.prom").exists()


def test_a_run_that_fails_leaves_the_older_figures(place: Path) -> None:
    (place / "m.prom").write_text("older")
    assert isinstance(call("du", "nowhere").exception, cachefs.CacheError)
    assert (place / "m.prom").read_text() == "older"


def test_what_cannot_be_written_is_found_before_the_work(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("prune", "cache", "--older-than", "0s", "--grace", "0s", "--yes", "--metrics")
    result = CliRunner().invoke(program, [*words, "none/m.prom"], standalone_mode=False)
    assert isinstance(result.exception, click.BadParameter)
    assert "there is no directory 'none'" in result.exception.message
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(cachefs.UsageError, match=r"buildcachefs\[metrics\]"):
        raise call("prune", "cache", "--older-than", "0s", "--yes").exception or AssertionError
    assert [one.name for one in cachefs.open("cache").names()]
