"""Names that are copied to a backup before a prune removes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import cachefs
from tests import programs
from tests.servers.s3 import S3Server

ALL = cachefs.PrunePolicy(keep_last={"app*": 0}, keep=("app",))
"""Removes app-v2 of the recorded cache."""


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    shutil.copytree(recorded / "s3" / "max", tmp_path / "cache")
    return tmp_path / "cache"


def test_names_and_blobs_come_back_from_a_backup(folder: Path, tmp_path: Path) -> None:
    cache, backup = cachefs.open(folder), tmp_path / "backup"
    raw = cache.manifest("app-v2").raw
    modified = {name.name: name.modified for name in cache.names()}["app-v2"]
    plan = cache.plan_prune(ALL, grace=0, backup_to=backup, backup_blobs=True)
    assert plan.backup is not None
    assert plan.backup.names == ["app-v2"]
    assert not backup.exists()
    report = plan.execute()
    assert (report.removed, report.backed_up) == (["app-v2"], ["app-v2"])
    assert plan.backup.copies == report.deleted
    [kept] = cachefs.open(backup).names()
    assert kept.modified == pytest.approx(modified)

    cachefs.copy(backup, folder)
    assert cachefs.open(folder).manifest("app-v2").raw == raw
    assert cachefs.open(folder).verify(read_data=1.0).faults == []


def test_blobs_within_the_grace_period_are_copied_too(folder: Path, tmp_path: Path) -> None:
    """The next prune deletes them, and knows of no name then."""
    plan = cachefs.open(folder).plan_prune(ALL, backup_to=tmp_path / "b", backup_blobs=True)
    assert plan.delete == []
    assert plan.backup is not None
    assert plan.backup.copies.blobs > 0
    plan.execute()
    cachefs.open(folder).prune(grace=0)
    cachefs.copy(tmp_path / "b", folder)
    assert cachefs.open(folder).verify(read_data=1.0).faults == []
    assert "app-v2" in cachefs.open(folder)


def test_without_blobs_a_name_comes_back_while_the_cache_has_them(
    folder: Path, tmp_path: Path
) -> None:
    report = cachefs.open(folder).prune(ALL, backup_to=tmp_path / "b")
    assert report.backed_up == ["app-v2"]
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["manifests"]
    cachefs.copy(tmp_path / "b", folder)
    assert "app-v2" in cachefs.open(folder)
    assert cachefs.open(folder).verify(read_data=1.0).faults == []


def test_a_bucket_can_be_the_backup(folder: Path, moto_s3: S3Server) -> None:
    backup = moto_s3.attributes(moto_s3.bucket())
    cachefs.open(folder).prune(ALL, grace=0, backup_to=backup, backup_blobs=True)
    cachefs.copy(backup, folder)
    assert cachefs.open(folder).verify(read_data=1.0).faults == []


def test_tags_go_to_a_keyed_backup_and_back(recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded / "local-max", tmp_path / "cache")
    cache = cachefs.open(f"type=local,dest={tmp_path}/cache")
    before = {name.name: cache.load(name.name).blobs() for name in cache.names()}
    policy = cachefs.PrunePolicy(keep_last={"*": 0}, keep=("v2",))
    report = cache.prune(policy, grace=0, backup_to=tmp_path / "b", backup_blobs=True)
    assert report.backed_up == report.removed != []
    cachefs.copy(tmp_path / "b", cache)
    assert {name.name: cache.load(name.name).blobs() for name in cache.names()} == before


def test_nothing_is_removed_if_the_backup_fails(folder: Path, tmp_path: Path) -> None:
    before = cachefs.open(folder).names()
    plan = cachefs.open(folder).plan_prune(ALL, grace=0, backup_to=tmp_path / "b")
    (tmp_path / "b").write_text("a file, not a folder")
    with pytest.raises(cachefs.StoreError) as raised:
        plan.execute()
    assert raised.value.side == "target"
    assert cachefs.open(folder).names() == before
    assert cachefs.open(folder).verify(read_data=1.0).faults == []


def test_a_backup_in_the_cache_itself_is_refused(folder: Path) -> None:
    places = (
        cachefs.open(folder),
        cachefs.open(folder, blobs_prefix="others/"),
        cachefs.open(folder, manifests_prefix="old/"),
    )
    for place in places:
        with pytest.raises(cachefs.UsageError, match="would be part of the cache"):
            cachefs.open(folder).plan_prune(ALL, backup_to=place)


@pytest.mark.parametrize("part", ["", "blobs"])
def test_a_backup_through_a_link_to_the_cache_is_refused(
    folder: Path, tmp_path: Path, part: str
) -> None:
    link = tmp_path / "link"
    (link / part).parent.mkdir(exist_ok=True)
    (link / part).symlink_to(folder / part)
    for cache, backup in ((folder, link), (link, folder)):
        if not (cache / "manifests").exists():
            continue
        with pytest.raises(cachefs.UsageError, match="would be part of the cache"):
            cachefs.open(cache).plan_prune(ALL, backup_to=backup)


@pytest.mark.parametrize("place", ["manifests", "manifests/old", "blobs/sha256:x"])
def test_a_backup_among_names_or_blobs_is_refused(folder: Path, place: str) -> None:
    with pytest.raises(cachefs.UsageError, match="would be part of the cache"):
        cachefs.open(folder).plan_prune(ALL, backup_to=folder / place)


def test_an_oci_directory_in_the_same_folder_is_refused(folder: Path) -> None:
    """The folder would then be taken for an OCI directory."""
    with pytest.raises(cachefs.UsageError, match="would be part of the cache"):
        cachefs.open(folder).plan_prune(ALL, backup_to=f"type=local,dest={folder}")


def test_a_bucket_of_the_same_name_on_another_server_is_apart(
    moto_s3: S3Server, seaweed_s3: S3Server, recorded: Path
) -> None:
    name = moto_s3.bucket()
    seaweed_s3.client.create_bucket(Bucket=name)
    cachefs.copy(recorded / "s3" / "max", moto_s3.attributes(name))
    backup = seaweed_s3.attributes(name)
    cachefs.open(moto_s3.attributes(name)).prune(ALL, grace=0, backup_to=backup, backup_blobs=True)
    assert [one.name for one in cachefs.open(backup).names()] == ["app-v2"]


def test_blobs_without_a_place_are_refused(folder: Path) -> None:
    with pytest.raises(cachefs.UsageError, match="backup_blobs without backup_to"):
        cachefs.open(folder).plan_prune(ALL, backup_blobs=True)
    ended = programs.run("prune", str(folder), "--blobs", "--dry-run")
    assert ended.status == 2
    assert "--blobs needs --backup-to" in ended.err


def test_where_no_name_goes_nothing_is_copied(folder: Path, tmp_path: Path) -> None:
    plan = cachefs.open(folder).plan_prune(backup_to=tmp_path / "b", backup_blobs=True)
    assert plan.backup is None
    assert plan.execute().backed_up == []
    assert not (tmp_path / "b").exists()


def test_the_command_says_what_is_copied_first(folder: Path, tmp_path: Path) -> None:
    options = ("--keep-last", "app-v*=0", "--grace", "0s", "--backup-to", f"{tmp_path}/b")
    ended = programs.run("prune", str(folder), *options, "--blobs", "--yes")
    assert ended.status == 0, ended.err
    assert "before that, copy 1 name and" in ended.out
    assert f"{tmp_path}/b" in ended.out
    assert "app-v2" in cachefs.open(tmp_path / "b")
