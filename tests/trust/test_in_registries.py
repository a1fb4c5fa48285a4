"""Signatures in registries: referrers of the manifest, in the registry's list or under a tag."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import cachefs
from cachefs.errors import NotFoundError
from cachefs.layout.places import InRegistry
from cachefs.wire.referrers import ARTIFACT_TYPE, fallback_tag
from tests.signing import checked_by_ssh_keygen, export, key_id, keys, public, reasons, subject


@pytest.fixture
def repository(registry: str) -> str:
    """A repository that nobody has used yet."""
    return f"type=registry,ref={registry}/ci/{secrets.token_hex(8)}"


def signed(repository: str, folder: Path, *names: str) -> tuple[Path, Path]:
    """Sign new names by the first of two keys; returns both."""
    key, other = keys(folder, "ci", "other")
    export(cachefs.open(repository, signing_key=key), *names)
    return key, other


def test_what_is_signed_is_read_and_nothing_else(repository: str, tmp_path: Path) -> None:
    key, other = signed(repository, tmp_path, "main", "dev")
    reader = cachefs.open(repository, signed_by=public(key))
    assert reader.load("main").records
    assert reader.load("dev").records
    assert "not trusted" in reasons(cachefs.open(repository, signed_by=public(other)))
    export(cachefs.open(repository), "dev", seed=2)
    assert reasons(reader, "dev")
    assert reader.load("main").records


def test_lists_of_signatures_are_no_names(repository: str, tmp_path: Path) -> None:
    signed(repository, tmp_path, "main")
    assert [one.name for one in cachefs.open(repository).names()] == ["main"]


def test_names_cannot_be_swapped(repository: str, tmp_path: Path) -> None:
    (key,) = keys(tmp_path, "ci")
    writer = cachefs.open(repository, signing_key=key)
    export(writer, "main", seed=1)
    export(writer, "dev", seed=2)
    cachefs.copy(f"{repository}:dev", f"{repository}:main")
    assert "for the name 'dev'" in reasons(cachefs.open(repository, signed_by=public(key)))


def test_several_sign_and_none_replaces_another(repository: str, tmp_path: Path) -> None:
    key, other = signed(repository, tmp_path, "main")
    cachefs.open(repository, signing_key=other).sign(["main"])
    cachefs.open(repository, signing_key=other).sign(["main"])
    for each in (key, other):
        assert cachefs.open(repository, signed_by=public(each)).load("main").records
    _, listed = referrers(repository, "main")
    assert [one["artifactType"] for one in listed] == [ARTIFACT_TYPE] * 2


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_ssh_keygen_and_a_second_reader_of_the_format_agree(
    repository: str, tmp_path: Path
) -> None:
    key, other = signed(repository, tmp_path, "main")
    digest, (listed,) = referrers(repository, "main")
    cache = f"oci://{repository.partition('ref=')[2]}/"
    found = {name.rpartition(".")[2]: text for name, text in listed["annotations"].items()}
    assert (found["key"], found["subject"]) == (key_id(key), subject(cache, "main"))
    data = found["statement"].encode()
    statement = checked_by_ssh_keygen(data, key, tmp_path)
    assert statement is not None
    assert (statement["cache"], statement["name"]) == (cache, "main")
    assert statement["manifest"] == digest
    assert checked_by_ssh_keygen(data, other, tmp_path) is None


def referrers(repository: str, name: str) -> tuple[str, list[dict[str, Any]]]:
    """The digest under the name, and its referrers, read without the code under test."""
    host, _, path = repository.partition("ref=")[2].partition("/")
    types = (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
    )
    accept = {"Accept": ",".join(types)}

    def get(reference: str) -> Any:
        url = f"http://{host}/v2/{path}/manifests/{reference}"
        return urllib.request.urlopen(urllib.request.Request(url, headers=accept))

    with get(name) as response:
        digest = response.headers["Docker-Content-Digest"]
    with get(fallback_tag(digest)) as response:
        found: list[dict[str, Any]] = json.load(response)["manifests"]
    for one in found:
        with get(one["digest"]) as response:
            manifest = json.load(response)
        assert manifest["subject"]["digest"] == digest
        assert manifest["annotations"] == one["annotations"]
    return digest, found


def test_the_commands(repository: str, tmp_path: Path) -> None:
    key, _ = signed(repository, tmp_path, "main")
    copied = tmp_path / "copied"
    report = cachefs.copy(cachefs.open(repository, signed_by=public(key)), copied)
    assert report.names == ["main"]
    other = cachefs.open(f"{repository}-two", signing_key=key)
    assert cachefs.promote(cachefs.open(repository, signed_by=public(key)), other).refused
    assert not cachefs.open(repository, signed_by=public(key)).verify("main").faults


class Registry:
    """A model of a store whose registry keeps lists of referrers, made from the specification.

    Debian's registry, which the other tests use, keeps none.
    """

    root = "registry/"
    side = None

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def read(self, key: str, limit: int) -> bytes:
        del limit
        kind, _, reference = key.partition("/")
        if kind == "referrers":
            found = [
                (name, json.loads(data))
                for name, data in self.objects.items()
                if name.startswith("manifests/")
            ]
            listed = [
                {
                    "mediaType": data["mediaType"],
                    "digest": name.removeprefix("manifests/"),
                    "size": len(self.objects[name]),
                    "artifactType": data["artifactType"],
                    "annotations": data["annotations"],
                }
                for name, data in found
                if data.get("subject", {}).get("digest") == reference
            ]
            return json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
        try:
            return self.objects[key]
        except KeyError:
            raise NotFoundError("there is none") from None

    async def stat(self, key: str) -> object:
        return self.objects.get(key)

    async def put(self, key: str, data: bytes) -> None:
        self.objects[key] = data


def test_a_registry_with_lists_of_referrers_needs_no_tag() -> None:
    store: Any = Registry()
    manifest = f"sha256:{'1' * 64}"
    media_type = "application/vnd.oci.image.manifest.v1+json"
    body = {"schemaVersion": 2, "mediaType": media_type}
    store.objects[f"manifests/{manifest}"] = json.dumps(body).encode()

    async def work() -> None:
        place = InRegistry()
        await place.put(store, manifest, "a" * 64, "b" * 64, b"statement")
        assert [one.data for one in await place.by(store, manifest, ["a" * 64], "b" * 64)] == [
            b"statement"
        ]
        assert await place.by(store, manifest, ["c" * 64], "b" * 64) == []
        assert len(await place.some(store, manifest)) == 1

    asyncio.run(work())
    assert f"manifests/{fallback_tag(manifest)}" not in store.objects


NO_LISTS = [b"", b"[]", b'{"manifests": 1}', b"\xff", b"[" * 100_000]


class Old(Registry):
    """The model of a store whose registry has lists under tags only."""

    async def read(self, key: str, limit: int) -> bytes:
        if key.startswith("referrers/"):
            raise NotFoundError("there is none")
        return await super().read(key, limit)


MANIFEST = f"sha256:{'1' * 64}"
TAG = f"manifests/{fallback_tag(MANIFEST)}"


@pytest.mark.parametrize("raw", NO_LISTS)
def test_what_is_no_list_is_never_replaced(raw: bytes) -> None:
    store: Any = Old()
    store.objects |= {f"manifests/{MANIFEST}": b'{"mediaType": "m"}', TAG: raw}
    with pytest.raises(cachefs.ManifestError, match="no list of referrers"):
        asyncio.run(InRegistry().put(store, MANIFEST, "a" * 64, "b" * 64, b"statement"))
    assert store.objects[TAG] == raw


def test_what_other_tools_keep_in_a_list_stays() -> None:
    store: Any = Old()
    others = [
        {"mediaType": "x", "digest": "d", "size": 1, "annotations": None, "platform": {"os": "y"}},
        {"mediaType": "x", "digest": "e", "size": 1, "data": "AA==", "annotations": {"a": "b"}},
        "no descriptor",
    ]
    document = {"schemaVersion": 2, "manifests": others, "annotations": {"of": "the index"}}
    store.objects |= {
        f"manifests/{MANIFEST}": b'{"mediaType": "m"}',
        TAG: json.dumps(document).encode(),
    }

    async def work() -> None:
        for statement in (b"first", b"second"):
            await InRegistry().put(store, MANIFEST, "a" * 64, "b" * 64, statement)
        (found,) = await InRegistry().some(store, MANIFEST)
        assert found.data == b"second"

    asyncio.run(work())
    written = json.loads(store.objects[TAG])
    assert written["manifests"][:-1] == others
    assert written["annotations"] == document["annotations"]


@pytest.mark.parametrize("raw", NO_LISTS)
def test_a_list_that_is_none_is_no_signature(raw: bytes) -> None:
    store: Any = Registry()

    async def read(key: str, limit: int) -> bytes:
        return raw

    store.read = read
    with pytest.raises(cachefs.ManifestError, match="no list of referrers"):
        asyncio.run(InRegistry().by(store, MANIFEST, ["a"], "b"))
