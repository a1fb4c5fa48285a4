"""A copy that deletes: the target's names become the source's, blobs are deleted as by a prune."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import cachefs
from cachefs.cli.main import program
from tests.servers.s3 import S3Server


def aged(folder: Path, days: float = 10.0) -> None:
    then = time.time() - days * 86_400
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def needed(cache: cachefs.Cache) -> set[str]:
    return {blob for name in cache.names() for blob in cache.load(name.name).blobs()}


@pytest.fixture
def target(recorded: Path, tmp_path: Path) -> Path:
    """A copy of ``app`` and ``app-v2``, old."""
    folder = tmp_path / "target"
    shutil.copytree(recorded / "s3" / "max", folder)
    aged(folder)
    return folder


@pytest.fixture
def source(recorded: Path, tmp_path: Path) -> Path:
    """``app`` alone, with its blobs."""
    folder = tmp_path / "source"
    cachefs.copy(f"type=fsspec,url=file://{recorded}/s3/max/,name=app", folder)
    return folder


def test_names_and_blobs_become_equal(source: Path, target: Path) -> None:
    before = files(target)
    report = cachefs.copy(source, target, delete=True)
    assert report.names == ["app"]
    assert report.removed == ["app-v2"]
    assert report.uploaded.blobs == 0
    assert report.deleted.blobs == len(before) - len(files(source)) - 1
    assert files(target) == files(source)
    for path in files(source):
        assert (target / path).read_bytes() == (source / path).read_bytes()


def test_young_blobs_stay_for_the_grace(source: Path, target: Path) -> None:
    young = {path for path in files(target) if path.startswith("blobs/")}
    for path in young:
        os.utime(target / path)
    report = cachefs.copy(source, target, delete=True)
    assert report.removed == ["app-v2"]
    assert report.deleted.blobs == 0
    assert files(target) == young | {"manifests/app"}


def test_a_mirror_of_a_mirror_does_nothing(source: Path, target: Path) -> None:
    cachefs.copy(source, target, delete=True)
    again = cachefs.copy(source, target, delete=True)
    assert (again.uploaded.blobs, again.removed, again.deleted.blobs) == (0, [], 0)


def test_after_a_name_that_could_not_be_copied_nothing_is_deleted(
    source: Path, target: Path
) -> None:
    (source / "manifests" / "broken").write_bytes(b"{")
    before = files(target)
    with pytest.raises(cachefs.CopyError):
        cachefs.copy(source, target, delete=True)
    assert files(target) == before


def test_an_empty_source_deletes_nothing(tmp_path: Path, target: Path) -> None:
    before = files(target)
    with pytest.raises(cachefs.UsageError, match="nothing to copy"):
        cachefs.copy(tmp_path / "empty", target, delete=True)
    assert files(target) == before


@pytest.mark.parametrize("chosen", ["source", "target"])
def test_chosen_names_and_delete_do_not_go_together(
    source: Path, target: Path, chosen: str
) -> None:
    places = {"source": f"file://{source}/", "target": f"file://{target}/"}
    places[chosen] = f"type=fsspec,url={places[chosen]},name=app"
    before = files(target)
    with pytest.raises(cachefs.UsageError, match="leave name="):
        cachefs.copy(places["source"], places["target"], delete=True)
    assert files(target) == before


def test_an_oci_directory_is_mirrored(recorded: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(recorded / "local-min", source)
    shutil.copytree(recorded / "local-max", target)
    aged(target)
    report = cachefs.copy(f"type=local,src={source}", f"type=local,dest={target}", delete=True)
    assert report.removed == ["v2"]
    assert files(target) - {"index.json.lock"} == files(source)


def test_a_bucket_is_mirrored_to_a_directory(
    moto_s3: S3Server, recorded: Path, target: Path
) -> None:
    bucket = moto_s3.attributes(moto_s3.bucket())
    cachefs.copy(recorded / "s3" / "min", bucket)
    report = cachefs.copy(bucket, target, delete=True)
    assert report.removed == ["app-v2"]
    cache = cachefs.open(target)
    assert [name.name for name in cache.names()] == ["app"]
    assert {path.removeprefix("blobs/") for path in files(target) if "blobs" in path} == needed(
        cache
    )


def test_the_command_says_what_went(source: Path, target: Path) -> None:
    done = CliRunner().invoke(program, ["copy", "--delete", str(source), str(target)])
    assert done.exit_code == 0, done.output
    assert "removed 1 name: app-v2" in done.output
    assert "deleted" in done.output
