"""What a cache uses: the figures equal those counted here from plain JSON and files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import cachefs
from cachefs import Amount
from cachefs.cli.main import program
from cachefs.concurrency import run
from cachefs.operations.usage import DAY, measure
from tests.damaging import Folder, MakePlace, Place
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server

ORPHAN = b"nobody needs these bytes"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(program, arguments, standalone_mode=False, catch_exceptions=False)


@pytest.fixture(params=["keyed", "s3"])
def place(request: pytest.FixtureRequest, make_place: MakePlace) -> Place:
    return make_place(request.param)


def needs(place: Place) -> dict[str, dict[str, int]]:
    """Each name's blobs and sizes, from its JSON."""
    found = {}
    for key in place.objects:
        if key.startswith("manifests/"):
            layers = json.loads(place.objects[key])["layers"]
            found[key.removeprefix("manifests/")] = {
                layer["blob"]: layer["annotations"]["size"] for layer in layers
            }
    return found


def put_orphan(place: Place) -> str:
    digest = str(cachefs.Digest.of(ORPHAN))
    place.objects[place.blob_key(digest)] = ORPHAN
    return digest


def amount(sizes: Iterable[int]) -> Amount:
    listed = list(sizes)
    return Amount(len(listed), sum(listed))


def test_figures_of_the_recorded_cache(place: Place) -> None:
    put_orphan(place)
    app, v2 = needs(place)["app"], needs(place)["app-v2"]
    union = app | v2
    usage = place.cache.usage()
    by_name = {one.name: one for one in usage.names}
    assert list(by_name) == ["app", "app-v2"]
    shared = amount(size for digest, size in app.items() if digest in v2)
    for name, mine, other in (("app", app, v2), ("app-v2", v2, app)):
        assert by_name[name].total == amount(mine.values())
        assert by_name[name].unique == amount(s for d, s in mine.items() if d not in other)
        assert by_name[name].shared == shared
        assert by_name[name].fault is None
    assert shared.blobs
    assert usage.referenced == amount(union.values())
    assert usage.named == amount([*app.values(), *v2.values()])
    assert usage.dedup == (sum(app.values()) + sum(v2.values())) / sum(union.values())
    assert usage.orphaned == amount([len(ORPHAN)])
    assert usage.stored == amount([*union.values(), len(ORPHAN)])
    assert usage.missing == usage.uncertain == Amount()


def test_missing_blobs_have_the_stated_size(place: Place) -> None:
    digest, size = next(iter(needs(place)["app"].items()))
    before = place.cache.usage()
    del place.objects[place.blob_key(digest)]
    after = place.cache.usage()
    assert after.missing == Amount(1, size)
    assert after.stored == Amount(before.stored.blobs - 1, before.stored.bytes - size)
    assert (after.names, after.referenced) == (before.names, before.referenced)
    assert call("du", place.location).return_value == 1


def test_orphans_are_uncertain_beside_a_manifest_that_cannot_be_read(place: Place) -> None:
    put_orphan(place)
    app, v2 = needs(place)["app"], needs(place)["app-v2"]
    place.objects[place.manifest_key("app-v2")] = b"{"
    usage = place.cache.usage()
    only_v2 = [size for digest, size in v2.items() if digest not in app]
    assert usage.orphaned == Amount()
    assert usage.uncertain == amount([*only_v2, len(ORPHAN)])
    broken = usage.names[1]
    assert broken.total == broken.unique == broken.shared == Amount()
    assert broken.fault is not None
    assert usage.names[0].unique == amount(app.values())
    shown = call("du", place.location)
    assert shown.return_value == 1
    assert broken.fault in shown.output
    assert "uncertain" in shown.output
    assert "orphaned  " not in shown.output


def test_only_the_names_of_the_location_are_listed(place: Place) -> None:
    usage = place.cache.with_names(["app-v2", "absent"]).usage()
    whole = place.cache.usage()
    assert usage.names[0] == whole.names[1]
    assert (usage.names[1].name, usage.names[1].fault) == ("absent", "there is no such name")
    assert usage.referenced == whole.referenced
    assert usage.uncertain == Amount()


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_s3_is_asked_for_lists_and_manifests_only(
    engine: str,
    make_place: MakePlace,
    moto_s3: S3Server,
    recording: Callable[[S3Server], RecordingProxy],
) -> None:
    place = make_place("s3")
    bucket = cachefs.open(place.location).location.url.rstrip("/").rpartition("/")[2]
    proxy = recording(moto_s3)
    cache = cachefs.open(proxy.server.attributes(bucket, engine=engine))
    cache.names()
    proxy.clear()
    assert cache.usage().stored == place.cache.usage().stored
    lists = proxy.count("GET", lambda request: "list-type" in request.parameters)
    manifests = proxy.count("GET", lambda request: "/manifests/" in request.path)
    assert (lists, manifests, len(proxy.requests)) == (2, 2, 4)


# --- OCI directories -----------------------------------------------------------------------------


def oci_needs(objects: Folder) -> dict[str, dict[str, int]]:
    """For each tag all that its image manifest reaches, from plain JSON."""
    found = {}
    for item in json.loads(objects["index.json"])["manifests"]:
        manifest = json.loads(objects[f"blobs/sha256/{item['digest'][7:]}"])
        parts = [item, manifest["config"], *manifest["layers"]]
        tag = item["annotations"]["org.opencontainers.image.ref.name"]
        found[tag] = {part["digest"]: part["size"] for part in parts}
    return found


def test_manifests_and_configs_of_an_oci_directory_are_referenced(recorded: Path) -> None:
    folder = recorded / "local-max"
    tags = oci_needs(Folder(folder))
    usage = cachefs.open(folder).usage()
    assert {one.name: one.total for one in usage.names} == {
        tag: amount(blobs.values()) for tag, blobs in tags.items()
    }
    files = [path.stat().st_size for path in (folder / "blobs" / "sha256").iterdir()]
    assert usage.stored == usage.referenced == amount(files)
    assert usage.orphaned == usage.missing == usage.uncertain == Amount()


def test_a_manifest_without_a_tag_keeps_its_blobs(make_place: MakePlace) -> None:
    place = make_place("oci")
    assert isinstance(place.objects, Folder)
    tags = oci_needs(place.objects)
    index = json.loads(place.objects["index.json"])
    del index["manifests"][1]["annotations"]
    untagged = tags[
        next(tag for tag in tags if tags[tag].keys() >= {index["manifests"][1]["digest"]})
    ]
    place.objects["index.json"] = json.dumps(index).encode()
    usage = place.cache.usage()
    (one,) = usage.names
    mine = tags[one.name]
    assert one.unique == amount(s for digest, s in mine.items() if digest not in untagged)
    assert usage.orphaned == Amount()
    del place.objects[place.blob_key(index["manifests"][1]["digest"])]
    usage = place.cache.usage()
    assert usage.fault is not None
    assert usage.orphaned == Amount()
    assert usage.uncertain.blobs
    assert call("du", place.location).return_value == 1


def test_a_tag_that_is_there_twice_is_a_fault(make_place: MakePlace) -> None:
    place = make_place("oci")
    index = json.loads(place.objects["index.json"])
    index["manifests"][1]["annotations"] = index["manifests"][0]["annotations"]
    place.objects["index.json"] = json.dumps(index).encode()
    usage = place.cache.usage()
    assert all("exists 2 times" in (one.fault or "") for one in usage.names)
    assert usage.uncertain == usage.stored


def test_a_digest_in_the_location_is_refused(recorded: Path) -> None:
    folder = recorded / "local-max"
    digest = json.loads((folder / "index.json").read_text())["manifests"][0]["digest"]
    with pytest.raises(cachefs.UsageError, match="digest"):
        cachefs.open(f"type=local,src={folder},digest={digest}").usage()


# --- ages ----------------------------------------------------------------------------------------


def test_ages_are_counted_from_the_stores_times(make_place: MakePlace) -> None:
    place = make_place("keyed")
    assert isinstance(place.objects, Folder)
    now = 2_000_000_000
    blobs = sorted((place.objects.root / "blobs").iterdir())
    ages = [0, DAY - 1, DAY, 7 * DAY - 1, 7 * DAY, 30 * DAY - 1, 30 * DAY, 400 * DAY]
    ages += [DAY] * (len(blobs) - len(ages))
    for path, age in zip(blobs, ages, strict=True):
        os.utime(path, (now - age, now - age))
    usage = run(measure(place.cache.layout, now=now))
    sizes = [path.stat().st_size for path in blobs]
    expected = [
        amount(size for size, age in zip(sizes, ages, strict=True) if low <= age < high)
        for low, high in ((0, DAY), (DAY, 7 * DAY), (7 * DAY, 30 * DAY), (30 * DAY, now))
    ]
    assert [one.days for one in usage.ages] == [1, 7, 30, None]
    assert [one.amount for one in usage.ages] == expected
    assert (usage.oldest, usage.newest) == (now - 400 * DAY, now)
    assert usage.undated == Amount()


def test_a_cache_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for location in (str(tmp_path / "keyed"), f"type=local,dest={tmp_path / 'oci'}"):
        with pytest.raises(cachefs.NoCacheError, match="there is nothing here"):
            cachefs.open(location).usage()


def test_an_empty_cache_uses_nothing(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    usage = cachefs.open(tmp_path).usage()
    assert usage.names == []
    assert usage.stored == usage.referenced == Amount()
    assert (usage.dedup, usage.oldest, usage.newest, usage.fault) == (None, None, None, None)
    assert call("du", str(tmp_path)).return_value == 0


def test_du_prints_tables_or_one_document(recorded: Path) -> None:
    location = str(recorded / "s3" / "max")
    usage = cachefs.open(location).usage()
    document = json.loads(call("du", "--json", location).output)
    assert document["stored"] == {"blobs": usage.stored.blobs, "bytes": usage.stored.bytes}
    assert [one["name"] for one in document["names"]] == ["app", "app-v2"]
    ended = call("du", location)
    assert ended.return_value == 0
    lines = [line.split() for line in ended.output.splitlines()]
    first, second = needs_of(recorded)
    assert lines[1][0] == "app"
    assert lines[1][3] == str(len(first))
    assert lines[1][6] == str(len(first - second))
    assert ["stored", "11", "blobs", "(2.0", "KiB)"] in lines


def needs_of(recorded: Path) -> tuple[set[str], set[str]]:
    folder = recorded / "s3" / "max" / "manifests"
    app, v2 = (json.loads((folder / name).read_text()) for name in ("app", "app-v2"))
    return {layer["blob"] for layer in app["layers"]}, {layer["blob"] for layer in v2["layers"]}
