"""A copy that deletes: the target's names become the source's, blobs are deleted as by a prune."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import cachefs
from cachefs.cli.main import program
from tests.servers.proxy import RecordingProxy
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
    with pytest.raises(cachefs.NoCacheError, match="there is nothing here"):
        cachefs.copy(tmp_path / "empty", target, delete=True)
    (tmp_path / "manifests").mkdir()
    with pytest.raises(cachefs.UsageError, match="nothing to copy"):
        cachefs.copy(tmp_path, target, delete=True)
    assert cachefs.copy(tmp_path / "empty", target, delete=True, ignore_missing=True).names == []
    assert files(target) == before


@pytest.mark.parametrize("chosen", ["source", "target"])
def test_chosen_names_and_delete_do_not_go_together(
    source: Path, target: Path, chosen: str
) -> None:
    places = {"source": f"file://{source}/", "target": f"file://{target}/"}
    places[chosen] = f"type=fsspec,url={places[chosen]},name=app"
    before = files(target)
    with pytest.raises(cachefs.UsageError, match="leave --name, name="):
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


def copied(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["copy", *map(str, arguments)])


def test_the_command_shows_a_plan_and_asks(source: Path, target: Path) -> None:
    before = files(target)
    for options, status in ((["--delete"], 2), (["--delete", "--dry-run"], 0)):
        done = copied(source, target, *options)
        assert done.exit_code == status, done.output
        assert "app-v2  not in the source" in done.output
        assert "delete 2 blobs" in done.output
        assert files(target) == before
    done = copied(source, target, "--delete", "--yes")
    assert done.exit_code == 0, done.output
    assert "removed 1 name: app-v2" in done.output
    assert "deleted 2 blobs" in done.output
    assert files(target) == files(source)
    # Nothing is lost, so nothing is asked.
    assert copied(source, target, "--delete").exit_code == 0


def test_the_command_prints_plan_and_report_as_json(source: Path, target: Path) -> None:
    document = json.loads(copied(source, target, "--delete", "--yes", "--json").output)
    assert document["plan"]["remove"] == document["report"]["removed"] == ["app-v2"]
    assert document["plan"]["prune"]["frees"] == document["report"]["deleted"]


def test_a_name_that_came_after_the_plan_stays(source: Path, target: Path) -> None:
    plan = cachefs.plan_copy(source, target, delete=True)
    for folder, name in ((source, "app-v2"), (target, "other")):
        shutil.copy(target / "manifests" / "app", folder / "manifests" / name)
    assert plan.execute().removed == []
    assert list(cachefs.open(target)) == ["app", "app-v2", "other"]
    assert cachefs.open(target).verify(read_data=1.0).faults == []


def test_other_manifests_over_the_same_blobs_stop_a_mirror(source: Path, target: Path) -> None:
    (target / "others").mkdir()
    shutil.move(target / "manifests" / "app-v2", target / "others" / "app-v2")
    before = files(target)
    with pytest.raises(cachefs.UsageError, match="manifests_prefix=others/"):
        cachefs.copy(source, target, delete=True)
    assert files(target) == before


def test_a_name_in_the_way_is_removed_before(source: Path, target: Path) -> None:
    """A file where the source has a folder, and the reverse."""
    manifests = source / "manifests"
    for first, second in (("branch", "branch/x"), ("branch/x", "branch")):
        for name in ("branch", "branch/x"):
            if (manifests / name).is_file():
                (manifests / name).unlink()
        if first == "branch/x":
            (manifests / "branch").rmdir()
        (manifests / second).parent.mkdir(exist_ok=True)
        shutil.copy(manifests / "app", manifests / second)
        aged(source)
        cachefs.copy(source, target, delete=True)
        assert sorted(cachefs.open(target)) == ["app", second]
        assert cachefs.open(target).verify(read_data=1.0).faults == []


def test_names_keep_their_ages_where_files_have_times(source: Path, tmp_path: Path) -> None:
    aged(source, days=20.0)
    mirror = tmp_path / "mirror"
    cachefs.copy(source, mirror)
    ages = [
        (mirror / "manifests" / "app").stat().st_mtime,
        (source / "manifests" / "app").stat().st_mtime,
    ]
    assert ages[0] == pytest.approx(ages[1], abs=0.01)
    aged(source, days=1.0)
    report = cachefs.copy(source, mirror)
    assert report.unchanged == ["app"]
    then = (source / "manifests" / "app").stat().st_mtime
    assert (mirror / "manifests" / "app").stat().st_mtime == pytest.approx(then, abs=0.01)
    plan = cachefs.open(mirror).plan_prune(cachefs.PrunePolicy(older_than=12 * 3600.0))
    assert [removal.manifest.name for removal in plan.remove] == ["app"]


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_an_equal_manifest_is_not_written_again(
    engine: str,
    moto_s3: S3Server,
    recording: Callable[[S3Server], RecordingProxy],
    recorded: Path,
    tmp_path: Path,
) -> None:
    source = tmp_path / "copied"
    shutil.copytree(recorded / "s3" / "max", source)
    aged(source)
    proxy = recording(moto_s3)
    bucket = proxy.server.attributes(moto_s3.bucket(), engine=engine)
    cachefs.copy(source, bucket)
    proxy.clear()
    report = cachefs.copy(source, bucket)
    assert (report.unchanged, report.uploaded.blobs) == (["app", "app-v2"], 0)
    assert {request.method for request in proxy.requests} <= {"GET", "HEAD"}
    assert proxy.count("GET", lambda request: "/manifests/" in request.path) == 2
    # The source wrote it later, so its age has to become less in the bucket too.
    then = time.time() + 60
    os.utime(source / "manifests" / "app", (then, then))
    assert cachefs.copy(source, bucket).unchanged == ["app-v2"]
    mirrored = cachefs.copy(source, bucket, delete=True)
    assert (mirrored.removed, mirrored.deleted.blobs) == ([], 0)


def test_an_equal_tag_is_not_written_again(recorded: Path, tmp_path: Path) -> None:
    target = f"type=local,dest={tmp_path / 'oci'}"
    source = tmp_path / "copied"
    shutil.copytree(recorded / "s3" / "max", source)
    aged(source)
    cachefs.copy(source, target)
    index = (tmp_path / "oci" / "index.json").stat()
    assert cachefs.copy(source, target).unchanged == ["app", "app-v2"]
    assert (tmp_path / "oci" / "index.json").stat().st_mtime_ns == index.st_mtime_ns
    aged(tmp_path / "oci")
    report = cachefs.copy(source, target, delete=True)
    assert (report.removed, report.deleted.blobs) == ([], 0)
    assert cachefs.open(target).verify(read_data=1.0).faults == []


def test_other_manifests_over_the_same_blobs_stop_it(source: Path, target: Path) -> None:
    other = target / "nightly"
    other.mkdir()
    shutil.copy(target / "manifests" / "app-v2", other / "app-v2")
    before = files(target)
    with pytest.raises(cachefs.UsageError, match=r"copy without --delete .*, and in a prune give"):
        cachefs.copy(source, target, delete=True)
    assert files(target) == before
