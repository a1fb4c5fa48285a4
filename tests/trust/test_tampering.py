"""Nothing that no trusted key has signed is used, whatever somebody with write access does."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import cachefs
from cachefs.concurrency import run
from cachefs.layout import signing as signing_module
from cachefs.layout import superseding
from cachefs.user_directory import user_cache, write_checked
from tests.programs import run as run_program
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server
from tests.signing import export, keys, public, reasons, signatures


class Signed:
    """A cache with two names, signed by one key, and another key that nobody trusts."""

    def __init__(self, folder: Path, location: str) -> None:
        self.root = folder / "cache"
        self.location = location
        self.key, self.other = keys(folder, "ci", "other")
        export(self.writer(self.key), "main", "dev")

    def writer(self, key: Path) -> cachefs.Cache:
        return cachefs.open(self.location, signing_key=key)

    def reader(self, *trusted: str | Path) -> cachefs.Cache:
        return cachefs.open(self.location, signed_by=list(trusted or [public(self.key)]))

    @property
    def reason(self) -> str:
        return reasons(self.reader())


@pytest.fixture(params=["keyed", "oci"])
def signed(request: pytest.FixtureRequest, tmp_path: Path) -> Signed:
    folder = tmp_path / "cache"
    return Signed(tmp_path, f"type=local,dest={folder}" if request.param == "oci" else str(folder))


@pytest.fixture
def keyed(tmp_path: Path) -> Signed:
    return Signed(tmp_path, str(tmp_path / "cache"))


def flips(path: Path) -> Iterator[int]:
    """Change each byte in turn."""
    data = path.read_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 7)
        path.write_bytes(changed)
        yield position
    path.write_bytes(data)


def test_what_a_trusted_key_signed_is_read(signed: Signed) -> None:
    cache = signed.reader()
    assert cache.load("main").records
    assert cache.load("dev").records
    assert not cache.misses


def test_no_byte_of_a_manifest_can_be_changed(signed: Signed) -> None:
    (path,) = {signed.root / each.key for each in signed.reader().names() if each.name == "main"}
    # If a name is readable at all with a changed byte, it is because a reader without keys is lax.
    for position in flips(path):
        assert reasons(signed.reader()), position
    assert signed.reader().load("main").records


def test_no_byte_of_a_signature_can_be_changed(signed: Signed) -> None:
    cache = signed.reader()
    used = []
    for path in signatures(signed.root):  # find the one of main: without it, main is a miss
        data = path.read_bytes()
        path.unlink()
        if not cache.load("main").records:
            used.append(path)
        path.write_bytes(data)
    (path,) = used
    for position in flips(path):
        assert reasons(cache), position
    assert cache.load("main").records


@pytest.mark.parametrize("change", [b"\n", b" ", b"{}", b"\x00"])
def test_nothing_can_be_added_to_a_signature(keyed: Signed, change: bytes) -> None:
    for path in signatures(keyed.root):
        path.write_bytes(path.read_bytes() + change)
    assert "is not valid" in keyed.reason


def test_names_cannot_be_swapped(keyed: Signed) -> None:
    export(keyed.writer(keyed.key), "dev", seed=2)
    main, dev = (keyed.root / "manifests" / name for name in ("main", "dev"))
    main.write_bytes(dev.read_bytes())
    assert "for the name 'dev'" in keyed.reason


def test_the_signature_of_a_name_is_none_in_the_place_of_another_s(keyed: Signed) -> None:
    before = signatures(keyed.root)
    export(keyed.writer(keyed.key), "dev", seed=2)
    main, dev = (keyed.root / "manifests" / name for name in ("main", "dev"))
    main.write_bytes(dev.read_bytes())
    (of_dev,) = set(signatures(keyed.root)) - set(before)
    for path in before:  # one of them has the name that a reader of main looks for
        of_dev.with_name(path.name).write_bytes(of_dev.read_bytes())
    assert "for the name 'dev'" in keyed.reason


def test_the_signature_of_a_manifest_is_none_in_the_place_of_another_s(keyed: Signed) -> None:
    before = signatures(keyed.root)
    export(cachefs.open(keyed.root), "main", seed=2)  # nobody signed it
    digest = cachefs.Digest.of((keyed.root / "manifests" / "main").read_bytes())
    for path in before:
        moved = keyed.root / "signatures" / str(digest) / path.parent.name / path.name
        moved.parent.mkdir(parents=True, exist_ok=True)
        moved.write_bytes(path.read_bytes())
    assert "for the manifest" in keyed.reason


def test_caches_cannot_be_swapped(keyed: Signed, tmp_path: Path) -> None:
    shutil.copytree(keyed.root, tmp_path / "elsewhere")
    moved = cachefs.open(tmp_path / "elsewhere", signed_by=public(keyed.key))
    assert f"for the cache file://{keyed.root}/manifests/" in reasons(moved)


def test_a_mirror_is_read_by_the_identity_of_its_origin(keyed: Signed, tmp_path: Path) -> None:
    shutil.copytree(keyed.root, tmp_path / "mirror")
    identity = f"file://{keyed.root}/manifests/"
    mirror = cachefs.open(tmp_path / "mirror", signed_by=public(keyed.key), signed_as=identity)
    assert mirror.load("main").records


def test_without_a_signature_it_is_a_miss(signed: Signed) -> None:
    shutil.rmtree(signed.root / "signatures")
    assert "not signed by a trusted key" in signed.reason


def test_another_key_does_not_count(signed: Signed) -> None:
    shutil.rmtree(signed.root / "signatures")
    signed.writer(signed.other).sign("main")
    assert "which is not trusted" in signed.reason


def test_the_signature_of_another_key_does_not_count_in_the_place_of_a_trusted_one(
    keyed: Signed,
) -> None:
    before = {path.name: path for path in signatures(keyed.root)}
    keyed.writer(keyed.other).sign()
    for path in signatures(keyed.root):
        if path.parent != before[path.name].parent:
            before[path.name].write_bytes(path.read_bytes())
    assert "which is not trusted" in keyed.reason


def test_of_two_signers_one_that_is_trusted_is_enough(signed: Signed) -> None:
    signed.writer(signed.other).sign()
    assert signed.reader().load("main").records
    assert signed.reader(public(signed.other)).load("main").records
    for path in signatures(signed.root):
        if path.parent.name != signed.reader().layout.signing.trusted.keys[0].id:  # type: ignore[union-attr]
            path.write_bytes(b"damaged")
    assert signed.reader().load("main").records
    both = signed.reader(public(signed.key), public(signed.other))
    assert both.load("main").records
    assert "is not valid" in reasons(signed.reader(public(signed.other)))


def test_an_expired_signature_does_not_count(
    keyed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed.writer(keyed.key).sign("main", expires=60)
    assert keyed.reader().load("main").records
    now = time.time()
    monkeypatch.setattr(signing_module.time, "time", lambda: now + 61)
    assert "expired at" in keyed.reason


def test_an_old_signature_can_be_refused_by_its_age(
    keyed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {path: path.read_bytes() for path in signatures(keyed.root)}
    manifest = (keyed.root / "manifests" / "main").read_bytes()
    now = time.time()
    monkeypatch.setattr(signing_module.time, "time", lambda: now + 3600)
    export(keyed.writer(keyed.key), "main", seed=2)
    # A replay: all that was there an hour ago is put back, and was signed.
    (keyed.root / "manifests" / "main").write_bytes(manifest)
    for path, data in old.items():
        path.write_bytes(data)
    assert keyed.reader().load("main").records
    young = cachefs.open(keyed.location, signed_by=public(keyed.key), signed_within="30m")
    assert "too old" in reasons(young)


def test_a_signature_from_the_future_does_not_count(
    keyed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(signing_module.time, "time", lambda: now - 3600)
    assert "from the future" in keyed.reason


def test_a_revoked_key_does_not_count_wherever_else_it_is_trusted(
    keyed: Signed, tmp_path: Path
) -> None:
    line = Path(public(keyed.key)).read_text()
    trust = tmp_path / "trust"
    trust.write_text(f"ci {line}@revoked ci {line}other {Path(public(keyed.other)).read_text()}")
    assert "was revoked" in reasons(keyed.reader(trust, public(keyed.key)))
    keyed.writer(keyed.other).sign()
    assert keyed.reader(trust).load("main").records


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ('valid-before="20200101"', False),
        ('valid-after="20990101Z"', False),
        ('valid-after="20200101",valid-before="20990101000000Z"', True),
        ('namespaces="git,cachefs"', True),
    ],
)
def test_a_key_counts_while_it_is_valid(
    keyed: Signed, tmp_path: Path, options: str, counts: bool
) -> None:
    trust = tmp_path / "trust"
    trust.write_text(f"# ours\n\nci@example.org {options} {Path(public(keyed.key)).read_text()}")
    cache = keyed.reader(trust)
    assert bool(cache.load("main").records) is counts
    if not counts:
        assert "was not valid" in cache.misses[-1].reason


def test_a_name_that_is_not_trusted_is_not_copied_and_its_blobs_never_travel(
    keyed: Signed, tmp_path: Path
) -> None:
    export(cachefs.open(keyed.root), "main", seed=3)  # poisoned: nobody signed it
    done = run_program(
        "copy",
        str(keyed.root),
        str(tmp_path / "copy"),
        env={"CACHEFS_TRUSTED_KEYS": public(keyed.key)},
    )
    assert done.status == 1
    assert "not signed by a trusted key" in done.err
    assert [each.name for each in cachefs.open(tmp_path / "copy").names()] == ["dev"]
    poison = cachefs.open(keyed.root).load("main").blobs()
    there = {path.name for path in (tmp_path / "copy" / "blobs").iterdir()}
    assert there
    assert not there & {str(blob) for blob in poison}


def test_verify_says_what_is_not_trusted(keyed: Signed) -> None:
    shutil.rmtree(keyed.root / "signatures")
    report = keyed.reader().verify("main")
    assert ["not signed" in fault.reason for fault in report.faults] == [True]
    assert report.faults[0].key.endswith("manifests/main")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time at which signatures are made, which a test may change."""
    now = [time.time() - 86_400]
    monkeypatch.setattr(signing_module, "time", SimpleNamespace(time=lambda: now[0]))
    return now


def test_a_name_that_is_taken_back_to_an_older_state_is_noticed(
    tmp_path: Path, clock: list[float]
) -> None:
    signed = Signed(tmp_path, str(tmp_path / "cache"))
    manifest = signed.root / "manifests" / "main"
    older = manifest.read_bytes()
    assert signed.reader().load("main").records
    clock[0] += 3600
    export(signed.writer(signed.key), "main", seed=2)
    newer = manifest.read_bytes()
    # Who has not seen the newer state cannot know.
    manifest.write_bytes(older)
    assert signed.reader().load("main").records
    manifest.write_bytes(newer)
    assert signed.reader().load("main").records
    manifest.write_bytes(older)
    assert "taken back to an older state" in signed.reason
    assert signed.reader().load("dev").records
    # Its owner meant it.
    clock[0] += 3600
    signed.writer(signed.key).sign(["main"])
    assert signed.reader().load("main").records
    manifest.write_bytes(newer)
    assert "taken back to an older state" in signed.reason


def test_only_later_signatures_of_keys_that_are_trusted_supersede(
    tmp_path: Path, clock: list[float]
) -> None:
    signed = Signed(tmp_path, str(tmp_path / "cache"))
    manifest = signed.root / "manifests" / "main"
    older = manifest.read_bytes()
    clock[0] += 3600
    export(signed.writer(signed.other), "main", seed=2)
    both = signed.reader(public(signed.key), public(signed.other))
    assert both.load("main").records
    manifest.write_bytes(older)
    assert signed.reader().load("main").records
    assert "taken back to an older state" in reasons(both)


def test_writers_whose_clocks_differ_a_little_are_no_roll_back(
    tmp_path: Path, clock: list[float]
) -> None:
    signed = Signed(tmp_path, str(tmp_path / "cache"))
    assert signed.reader().load("main").records
    clock[0] -= 60
    export(signed.writer(signed.key), "main", seed=2)
    assert signed.reader().load("main").records


@pytest.mark.parametrize("data", [b"", b"\x81", b"\xc0", b"not what is kept there"])
def test_a_damaged_memory_counts_as_none(signed: Signed, data: bytes) -> None:
    assert signed.reader().load("main").records
    kept = [path for path in (user_cache() / superseding.FOLDER).iterdir() if path.is_file()]
    assert kept
    for path in kept:
        assert path.stat().st_mode & 0o077 == 0
        write_checked(data, superseding.FOLDER, path.name)
    assert signed.reader().load("main").records


def test_the_check_is_made_on_the_bytes_that_are_used(keyed: Signed) -> None:
    """A manifest that is replaced after it was read is not what was checked, and not used."""
    layout = keyed.reader().layout
    honest = (keyed.root / "manifests" / "main").read_bytes()
    export(cachefs.open(keyed.root), "main", seed=3)
    poison = layout.signing
    assert poison is not None
    require = poison.require

    async def later(*arguments: object) -> None:
        (keyed.root / "manifests" / "main").write_bytes(honest)
        await require(*arguments)  # type: ignore[arg-type]

    poison.require = later  # type: ignore[method-assign]
    with pytest.raises(cachefs.UntrustedError, match="not signed"):
        run(layout.read("main"))


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_a_hit_in_a_bucket_takes_one_request_more(
    seaweed_s3: S3Server,
    tmp_path: Path,
    recording: Callable[[S3Server], RecordingProxy],
    engine: str,
) -> None:
    (key,) = keys(tmp_path, "ci")
    bucket = seaweed_s3.bucket()
    export(cachefs.open(seaweed_s3.attributes(bucket, engine=engine), signing_key=key), "main")
    proxy = recording(seaweed_s3)
    cache = cachefs.open(proxy.server.attributes(bucket, engine=engine), signed_by=public(key))
    assert cache.load("main").records
    assert [request.method for request in proxy.requests] == ["GET", "GET"]
