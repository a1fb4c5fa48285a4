"""docs/format.md is enough: a second implementation, from this page alone, against cachefs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from graphlib import CycleError, TopologicalSorter
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import cachefs

# --- the second implementation: the standard library and folders, nothing of cachefs -------------

# A manifest is its JSON object, with everything filled in that is left out.
Json = dict[str, Any]
UNKNOWN = "0001-01-01T00:00:00Z"
CONFIG = "application/vnd.buildkit.cacheconfig.v0"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TAG = "org.opencontainers.image.ref.name"
DOCKER = {
    f"application/vnd.docker.image.rootfs.diff.tar{docker}": (
        f"application/vnd.oci.image.layer.v1.tar{oci}"
    )
    for docker, oci in (("", ""), (".gzip", "+gzip"), (".zstd", "+zstd"))
}
FACTS = {"mediaType": "", "diffID": "", "size": 0, "createdAt": UNKNOWN}
RECORD: Json = {"layers": [], "chains": [], "inputs": []}
FIELDS = (
    *("blob", "parent", "annotations", "mediaType", "diffID", "size"),
    *("layers", "records", "chains", "layer", "digest", "inputs", "selector", "link", "createdAt"),
)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def compact(value: Json) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for escaped in "&<>\u2028\u2029":
        text = text.replace(escaped, f"\\u{ord(escaped):04x}")
    return text.encode()


def encode(manifest: Json) -> bytes:
    def written(value: Any) -> Any:
        if isinstance(value, list):
            return [written(item) for item in value]
        if not isinstance(value, dict):
            return value
        always = {"layer", "link", "createdAt"}
        kept = (key for key in FIELDS if key in value and (value[key] or key in always))
        return {key: written(value[key]) for key in kept}

    return compact(written(manifest))


def decode(raw: bytes) -> Json:
    manifest: Json = {"layers": [], "records": []} | json.loads(raw)
    manifest["layers"] = [{"parent": 0, "annotations": {}} | it for it in manifest["layers"]]
    manifest["records"] = [RECORD | it for it in manifest["records"]]
    for layer in manifest["layers"]:
        layer["annotations"] = FACTS | layer["annotations"]
    for record in manifest["records"]:
        record["inputs"] = [[{"selector": ""} | key for key in it] for it in record["inputs"]]
    check(manifest)
    return manifest


def links(record: Json) -> set[int]:
    return {key["link"] for alternatives in record["inputs"] for key in alternatives}


def check(manifest: Json) -> None:
    layers, records = manifest["layers"], manifest["records"]
    parents = {i: {it["parent"]} - {-1} for i, it in enumerate(layers)}
    linked = {i: links(it) for i, it in enumerate(records)}
    for i, layer in enumerate(layers):
        if not parents[i] <= parents.keys() or layer["annotations"]["size"] < 0:
            raise ValueError(f"layer {i} has no such parent or size")
    for i, record in enumerate(records):
        named = {it["layer"] for it in record["layers"]}.union(
            *(c["layers"] for c in record["chains"])
        )
        if not (named <= parents.keys() and linked[i] <= linked.keys() and all(record["inputs"])):
            raise ValueError(f"record {i} names what is not there")
    for kind, graph in ("layer", parents), ("record", linked):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            raise ValueError(f"{kind} {error.args[1][0]} is in a cycle") from error


def stack(manifest: Json, top: int) -> list[int]:
    return [] if top == -1 else [*stack(manifest, manifest["layers"][top]["parent"]), top]


def moment(result: Json) -> str:
    return result["createdAt"].rstrip("Z")


def results(manifest: Json, record: Json) -> list[list[int]]:
    """The layers of each result, the newest first."""
    found = {(moment(it), tuple(stack(manifest, it["layer"]))) for it in record["layers"]}
    found |= {(moment(it), tuple(it["layers"])) for it in record["chains"]}

    def place(result: tuple[str, tuple[int, ...]]) -> tuple[str, list[str]]:
        return result[0], [manifest["layers"][i]["blob"] for i in reversed(result[1])][:8]

    return [[*layers] for _, layers in sorted(found, key=place, reverse=True)]


def find(manifest: Json, digest: str, inputs: list[set[tuple[int, str]]]) -> set[int]:
    """The records of a step; of each input the records that were found for it, and selectors."""

    def matches(record: Json) -> bool:
        return len(record["inputs"]) == len(inputs) and all(
            any((key["link"], key["selector"]) in found for key in alternatives)
            for found, alternatives in zip(inputs, record["inputs"], strict=True)
        )

    records = enumerate(manifest["records"])
    return {i for i, it in records if it["digest"] == digest and matches(it)}


def needed(manifest: Json, records: Iterable[Json]) -> set[int]:
    named = {i for it in records for layers in results(manifest, it) for i in layers}
    return {i for top in named for i in stack(manifest, top)}


def unstorable(records: list[Json]) -> set[int]:
    """Random records, and those that cannot do without them."""
    gone = {i for i, it in enumerate(records) if it["digest"].startswith("random:")}
    for _ in records:
        gone |= {
            i
            for i, record in enumerate(records)
            if any(gone.issuperset(key["link"] for key in it) for it in record["inputs"])
        }
    return gone


def place(records: list[Json], record: Json) -> tuple[Any, ...]:
    """What a record is sorted by."""
    inputs = (
        sorted((key["selector"], records[key["link"]]["digest"]) for key in alternatives)
        for alternatives in record["inputs"]
    )
    return record["digest"], len(record["inputs"]), *((len(it), it) for it in inputs)


def exported(manifest: Json, mode: str = "max") -> Json:
    """What an export writes of it, in its order."""
    layers, records = manifest["layers"], manifest["records"]
    linked = set[int]().union(*map(links, records))
    finals = (it for i, it in enumerate(records) if i not in linked)
    wanted, gone = needed(manifest, records if mode == "max" else finals), unstorable(records)

    def part(record: Json) -> Json:
        inputs = [[key for key in it if key["link"] not in gone] for it in record["inputs"]]
        tops = [it for it in record["layers"] if it["layer"] in wanted]
        chains = [it for it in record["chains"] if wanted.issuperset(it["layers"])]
        return record | {"layers": tops, "chains": chains, "inputs": inputs}

    kept = {i: part(it) for i, it in enumerate(records) if i not in gone}
    by_blob = sorted(needed(manifest, kept.values()), key=lambda i: layers[i]["blob"])
    by_digest = sorted(kept, key=lambda i: place(records, kept[i]))
    layer_at = {old: new for new, old in enumerate(by_blob)} | {-1: -1}
    record_at = {old: new for new, old in enumerate(by_digest)}

    def moved(record: Json) -> Json:
        tops = [it | {"layer": layer_at[it["layer"]]} for it in record["layers"]]
        chains = [it | {"layers": [layer_at[i] for i in it["layers"]]} for it in record["chains"]]
        inputs = [[key | {"link": record_at[key["link"]]} for key in it] for it in record["inputs"]]
        return record | {
            "layers": sorted(tops, key=lambda it: (it["layer"], moment(it))),
            "chains": sorted(chains, key=lambda it: (it["layers"], moment(it))),
            "inputs": [sorted(it, key=lambda key: (key["link"], key["selector"])) for it in inputs],
        }

    return {
        "layers": [layers[i] | {"parent": layer_at[layers[i]["parent"]]} for i in by_blob],
        "records": [moved(kept[i]) for i in by_digest],
    }


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


class Keyed:
    """The layout of object stores, in a folder."""

    def __init__(self, root: Path, blobs: str = "blobs/", manifests: str = "manifests/") -> None:
        self.root, self.blobs, self.manifests = root, blobs, manifests

    def names(self) -> list[str]:
        files = (it.relative_to(self.root) for it in self.root.rglob("*") if it.is_file())
        keys = (it.as_posix() for it in files if not it.name.startswith(".cachefs-"))
        start = self.manifests
        return sorted(key.removeprefix(start) for key in keys if key.startswith(start))

    def manifest(self, name: str) -> Json:
        return decode((self.root / f"{self.manifests}{name}").read_bytes())

    def path(self, digest: str) -> Path:
        return self.root / f"{self.blobs}{digest}"

    def blob(self, digest: str, size: int = 0) -> bytes:
        data = self.path(digest).read_bytes()
        if digest_of(data) != digest or size not in (0, len(data)):
            raise ValueError(f"{digest} is damaged")
        return data

    def write(self, name: str, manifest: Json, blob: Callable[[str], bytes]) -> None:
        for layer in manifest["layers"]:
            put(self.path(layer["blob"]), blob(layer["blob"]))
        put(self.root / f"{self.manifests}{name}", encode(manifest))


class Local(Keyed):
    """An OCI image layout."""

    def __init__(self, root: Path, kind: str = IMAGE) -> None:
        super().__init__(root, "blobs/sha256/")
        self.kind = kind

    def path(self, digest: str) -> Path:
        return self.root / "blobs/sha256" / digest.removeprefix("sha256:")

    def tags(self) -> dict[str, Json]:
        path = self.root / "index.json"
        index = json.loads(path.read_bytes())["manifests"] if path.exists() else []
        return {it["annotations"][TAG]: it for it in index}

    def names(self) -> list[str]:
        return sorted(self.tags())

    def manifest(self, name: str) -> Json:
        tag = self.tags()[name]
        image = json.loads(self.blob(tag["digest"], tag["size"]))
        parts = image.get("manifests") or [*image["layers"], image["config"]]
        (config,) = (it for it in parts if it["mediaType"] == CONFIG)
        manifest = decode(self.blob(config["digest"], config["size"]))
        facts = {it["digest"]: facts_of(it) for it in parts if it is not config}
        for layer in manifest["layers"]:
            layer["annotations"] = facts[layer["blob"]]
        return manifest

    def add(self, data: bytes, media_type: str, annotations: Json) -> Json:
        digest = digest_of(data)
        put(self.path(digest), data)
        descriptor = {"mediaType": media_type, "digest": digest, "size": len(data)}
        return descriptor | ({"annotations": annotations} if annotations else {})

    def add_layer(self, layer: Json, data: bytes) -> Json:
        facts = layer["annotations"]
        known = {
            "buildkit/createdat": facts["createdAt"],
            "containerd.io/uncompressed": facts["diffID"],
        }
        annotations = {key: text for key, text in known.items() if text not in ("", UNKNOWN)}
        return self.add(data, facts["mediaType"], annotations)

    def write(self, name: str, manifest: Json, blob: Callable[[str], bytes]) -> None:
        layers = [self.add_layer(it, blob(it["blob"])) for it in manifest["layers"]]
        bare = [layer | {"annotations": {}} for layer in manifest["layers"]]
        config = self.add(encode(manifest | {"layers": bare}), CONFIG, {})
        image = {"config": config, "layers": layers}
        parts = image if self.kind == IMAGE else {"manifests": [*layers, config]}
        top = compact({"schemaVersion": 2, "mediaType": self.kind} | parts)
        tags = self.tags() | {name: self.add(top, self.kind, {TAG: name})}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*tags.values()]}
        put(self.root / "oci-layout", compact({"imageLayoutVersion": "1.0.0"}))
        put(self.root / "index.json", compact(index))


def facts_of(descriptor: Json) -> Json:
    notes = descriptor.get("annotations", {})
    return {
        "mediaType": DOCKER.get(descriptor["mediaType"], descriptor["mediaType"]),
        "diffID": notes.get("containerd.io/uncompressed", ""),
        "size": descriptor["size"],
        "createdAt": notes.get("buildkit/createdat", UNKNOWN),
    }


# --- compared with cachefs -----------------------------------------------------------------------

KEYED = ["s3/min", "s3/max", "s3/multi", "s3/team/ci"]
LOCAL = ["local-min", "local-max", "local-zstd", "local-index"]
DOCKER_LOCAL = "local-docker-mediatypes"


def both(root: Path) -> tuple[Keyed, cachefs.Cache]:
    """A place named as one of the recorded caches, as the second and as cachefs opens it."""
    if root.name.startswith("local"):
        kind = INDEX if root.name == "local-index" else IMAGE
        first = cachefs.open(f"type=local,dest={root}", image_manifest=kind == IMAGE)
        return Local(root, kind), first
    blobs, manifests = ("objects/", "refs/") if root.name == "ci" else ("blobs/", "manifests/")
    first = cachefs.open(root, blobs_prefix=blobs, manifests_prefix=manifests)
    return Keyed(root, blobs, manifests), first


def files(root: Path) -> dict[str, bytes]:
    paths = (it for it in root.rglob("*") if it.is_file() and it.suffix != ".lock")
    return {it.relative_to(root).as_posix(): it.read_bytes() for it in paths}


def assert_both_read_the_same(second: Keyed, first: cachefs.Cache) -> None:
    assert second.names() == [it.name for it in first.names()] != []
    for name in second.names():
        manifest, graph = second.manifest(name), first.load(name)
        assert [it["blob"] for it in manifest["layers"]] == [it.blob for it in graph.layers]
        assert [it["digest"] for it in manifest["records"]] == [it.digest for it in graph.records]
        for layer in manifest["layers"]:
            size = layer["annotations"]["size"]
            assert second.blob(layer["blob"], size) == first.read_blob(layer["blob"], size)
        for i, record in enumerate(manifest["records"]):
            found = [[*it.layers] for it in graph.results([i])]
            assert results(manifest, record) == found
            step = [{(key["link"], key["selector"]) for key in it[:1]} for it in record["inputs"]]
            keys = [[cachefs.Key(*key) for key in it] for it in step]
            matched = graph.find(record["digest"], keys).records
            assert find(manifest, record["digest"], step) == matched >= {i}


@pytest.mark.parametrize("place", [*KEYED, *LOCAL, DOCKER_LOCAL])
def test_both_read_the_same_of_what_a_builder_wrote(recorded: Path, place: str) -> None:
    assert_both_read_the_same(*both(recorded / place))


@pytest.mark.parametrize("place", [*KEYED, *LOCAL])
def test_the_second_writes_what_the_builder_wrote_and_cachefs_copies_it(
    recorded: Path, tmp_path: Path, place: str
) -> None:
    source, (second, first) = both(recorded / place)[0], both(tmp_path / place)
    for name in source.names():
        second.write(name, exported(source.manifest(name)), source.blob)
    report = first.verify(read_data=1.0)
    cachefs.copy(first, both(tmp_path / "copied" / place)[1])
    assert (report.names, report.faults) == (source.names(), [])
    for copy in tmp_path / place, tmp_path / "copied" / place:
        assert files(copy) == files(recorded / place)


@pytest.mark.parametrize("place", [*LOCAL, DOCKER_LOCAL])
def test_both_make_the_same_keyed_cache_of_an_image_layout(
    recorded: Path, tmp_path: Path, place: str
) -> None:
    source, first = both(recorded / place)
    for name in source.names():
        Keyed(tmp_path / "second").write(name, source.manifest(name), source.blob)
    cachefs.copy(first, tmp_path / "first")
    assert files(tmp_path / "second") == files(tmp_path / "first")


@pytest.mark.parametrize(
    "broken",
    [
        {"layers": [{"blob": digest_of(b""), "parent": 1}]},
        {"layers": [{"blob": digest_of(b"")}]},
        {"layers": [{"blob": digest_of(b""), "annotations": {"size": -1, "createdAt": UNKNOWN}}]},
        {"records": [{"digest": "a", "layers": [{"layer": 0, "createdAt": UNKNOWN}]}]},
        {"records": [{"digest": "a", "chains": [{"layers": [0], "createdAt": UNKNOWN}]}]},
        {"records": [{"digest": "a", "inputs": [[{"link": 1}]]}]},
        {"records": [{"digest": "a", "inputs": [[{"link": 0}]]}]},
        {"records": [{"digest": "a", "inputs": [[]]}]},
    ],
)
def test_both_refuse_an_invalid_manifest_and_say_where(tmp_path: Path, broken: Json) -> None:
    put(tmp_path / "manifests/main", compact(broken))
    culprit = "layer 0" if "layers" in broken else "record 0"
    with pytest.raises(ValueError, match=culprit):
        Keyed(tmp_path).manifest("main")
    with pytest.raises(cachefs.ManifestError, match=culprit):
        cachefs.open(tmp_path).manifest("main")


CONTENT = {digest_of(b"%d" % number): b"%d" % number for number in range(5)}
DIGESTS = st.sampled_from([*CONTENT])
TIMES = st.sampled_from([UNKNOWN, "2026-08-01T12:00:00Z", "2026-08-01T12:00:00.5Z"])


@st.composite
def manifests(draw: st.DrawFn) -> Json:
    """In any order, without two layers or records whose order the format leaves open."""
    blobs = draw(st.permutations([*CONTENT]))
    facts = st.fixed_dictionaries(
        {"mediaType": st.just("a&<é>"), "diffID": DIGESTS, "size": st.just(1), "createdAt": TIMES}
    )
    layers = [
        {"blob": blob, "parent": draw(st.integers(-1, i - 1)), "annotations": draw(facts)}
        for i, blob in enumerate(blobs)
    ]
    layer = st.integers(0, len(layers) - 1)
    tops = st.fixed_dictionaries({"layer": layer, "createdAt": TIMES})
    chains = st.fixed_dictionaries({"layers": st.lists(layer, min_size=1), "createdAt": TIMES})
    records: list[Json] = []
    for _ in range(draw(st.integers(0, 8))):
        # Builders refuse a manifest in which a record links to one of one build only.
        lasting = [j for j, it in enumerate(records) if not it["digest"].startswith("random:")]
        key = {"selector": st.just("") | DIGESTS, "link": st.sampled_from(lasting or [0])}
        alternatives = st.lists(
            st.fixed_dictionaries(key),
            min_size=1,
            max_size=3,
            unique_by=itemgetter("selector", "link"),
        )
        record = {
            "layers": st.lists(tops, max_size=2, unique_by=itemgetter("layer", "createdAt")),
            "chains": st.lists(chains, max_size=1),
            "digest": st.just("random:1") | DIGESTS,
            "inputs": st.lists(alternatives, max_size=2 if lasting else 0),
        }
        records.append(draw(st.fixed_dictionaries(record)))
    assume(len({repr(place(records, it)) for it in records}) == len(records))
    return {"layers": layers, "records": records}


@pytest.mark.parametrize("layout", ["keyed", "local"])
@settings(max_examples=30)
@given(manifest=manifests(), mode=st.sampled_from(["min", "max"]))
def test_both_export_the_same_bytes_and_read_each_others(
    tmp_path_factory: pytest.TempPathFactory, layout: str, manifest: Json, mode: str
) -> None:
    name = "main/a&<é>"
    root = tmp_path_factory.mktemp(layout)
    second, theirs = both(root / "second" / layout)
    _, ours = both(root / "first" / layout)
    source = Keyed(root / "source")
    source.write(name, manifest, CONTENT.__getitem__)
    given = cachefs.open(source.root)
    ours.export(given.load(name), given, names=[name], mode=mode)
    second.write(name, exported(manifest, mode), CONTENT.__getitem__)
    assert files(second.root) == files(root / "first" / layout)
    assert_both_read_the_same(second, theirs)
