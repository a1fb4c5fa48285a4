"""Whatever is published is signed if there is a key, as others check it."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

import cachefs
from cachefs.testing import random_graph
from tests import programs
from tests.servers.s3 import S3Server
from tests.signing import export, keys, public, reasons, signatures, verified_by_ssh_keygen

needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed"
)


@needs_ssh_keygen
def test_ssh_keygen_and_a_second_reader_of_the_format_agree(tmp_path: Path) -> None:
    key, other = keys(tmp_path, "ci", "other")
    root = tmp_path / "cache"
    export(cachefs.open(root, signing_key=key), "main", "dev")
    manifest = (root / "manifests" / "main").read_bytes()
    identity = f"file://{root}/manifests/"
    told = {"name": "main", "cache": identity}
    found = verified_by_ssh_keygen(root, manifest, key, work=tmp_path, **told)
    assert found is not None
    assert set(found) == {"cache", "kind", "manifest", "name", "signed"}
    for wrong in (
        verified_by_ssh_keygen(root, manifest + b" ", key, work=tmp_path, **told),
        verified_by_ssh_keygen(root, manifest, other, work=tmp_path, **told),
        verified_by_ssh_keygen(root, manifest, key, name="x", cache=identity, work=tmp_path),
    ):
        assert wrong is None


@needs_ssh_keygen
@pytest.mark.parametrize("kind", [("ed25519",), ("ecdsa", "-b", "384"), ("rsa", "-b", "2048")])
def test_keys_of_ssh_keygen_work_as_they_are(tmp_path: Path, kind: tuple[str, ...]) -> None:
    key = tmp_path / "id"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", *kind, "-N", "", "-f", key],  # noqa: S607 - wherever it is
        check=True,
    )
    root = tmp_path / "cache"
    export(cachefs.open(root, signing_key=key), "main")
    assert cachefs.open(root, signed_by=public(key)).load("main").records
    manifest = (root / "manifests" / "main").read_bytes()
    identity = f"file://{root}/manifests/"
    assert verified_by_ssh_keygen(root, manifest, key, name="main", cache=identity, work=tmp_path)


@needs_ssh_keygen
def test_a_key_in_an_agent_signs_by_its_public_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "agent"
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", socket],  # noqa: S607 - wherever it is
        stdout=subprocess.PIPE,
    )
    try:
        assert agent.stdout is not None
        agent.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        (key,) = keys(tmp_path, "ci")
        subprocess.run(
            ["ssh-add", "-q", key],  # noqa: S607 - wherever it is
            check=True,
            capture_output=True,
        )
        key.unlink()
        root = tmp_path / "cache"
        export(cachefs.open(root, signing_key=public(key)), "main")
        assert cachefs.open(root, signed_by=public(key)).load("main").records
    finally:
        agent.terminate()
        agent.wait()
        if agent.stdout is not None:
            agent.stdout.close()


@pytest.mark.parametrize(
    "private",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["ed25519", "ecdsa", "rsa"],
)
def test_keys_in_pem_work_as_they_are(
    tmp_path: Path,
    private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    key, part = tmp_path / "key.pem", tmp_path / "public.pem"
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    part.write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    export(cachefs.open(tmp_path / "cache", signing_key=key), "main")
    assert cachefs.open(tmp_path / "cache", signed_by=part).load("main").records


def test_small_rsa_keys_are_refused(tmp_path: Path) -> None:
    private = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused
    key = tmp_path / "key.pem"
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(cachefs.UsageError, match="2048 bits"):
        cachefs.open(tmp_path / "cache", signing_key=key)


def test_copy_merge_and_join_sign_what_they_publish(tmp_path: Path) -> None:
    (key,) = keys(tmp_path, "ci")
    source = cachefs.open(tmp_path / "source")
    export(source, "main", "dev")
    target = cachefs.open(tmp_path / "target", signing_key=key)
    reader = cachefs.open(tmp_path / "target", signed_by=public(key))
    cachefs.copy(source, target)
    assert reader.load(["main", "dev"]).records
    cachefs.merge([source], target, "both")
    assert reader.load("both").records
    generated = random_graph(5, records=3)
    target.export(generated.graph, generated.blobs, "main", mode="max", on_conflict="merge")
    assert len(reader.load("main").records) > 3
    assert not reader.misses


def test_a_copy_signs_names_that_hold_the_same_already(tmp_path: Path) -> None:
    (key,) = keys(tmp_path, "ci")
    export(cachefs.open(tmp_path / "source"), "main")
    cachefs.copy(tmp_path / "source", tmp_path / "target")
    signing = cachefs.open(tmp_path / "target", signing_key=key)
    report = cachefs.copy(tmp_path / "source", signing)
    assert report.unchanged == ["main"]
    assert cachefs.open(tmp_path / "target", signed_by=public(key)).load("main").records


def test_what_others_wrote_is_not_signed_by_joining_it(tmp_path: Path) -> None:
    (key,) = keys(tmp_path, "ci")
    export(cachefs.open(tmp_path), "main", seed=3)
    before = (tmp_path / "manifests" / "main").read_bytes()
    writer = cachefs.open(tmp_path, signing_key=key)
    generated = random_graph(1, records=2)
    with pytest.raises(cachefs.UntrustedError, match="cachefs sign"):
        writer.export(generated.graph, generated.blobs, "main", mode="max", on_conflict="merge")
    assert (tmp_path / "manifests" / "main").read_bytes() == before
    writer.sign("main")  # now somebody vouches for it
    writer.export(generated.graph, generated.blobs, "main", mode="max", on_conflict="merge")
    assert cachefs.open(tmp_path, signed_by=public(key)).load("main").records


def test_run_signs_what_it_stores_and_restores_only_what_is_signed(tmp_path: Path) -> None:
    key, other = keys(tmp_path, "ci", "other")
    cache, work = tmp_path / "cache", tmp_path / "work"
    work.mkdir()
    step = ("run", "--cache", str(cache), "--output", "out", "--", "sh", "-c", "date > out")
    environment = {"CACHEFS_SIGNING_KEY": str(key), "CACHEFS_TRUSTED_KEYS": public(key)}
    assert programs.run(*step, cwd=work, env=environment).status == 0
    first = (work / "out").read_bytes()
    (work / "out").unlink()
    hit = programs.run(*step, cwd=work, env=environment)
    assert (work / "out").read_bytes() == first, hit.err
    (work / "out").unlink()
    stranger = {"CACHEFS_TRUSTED_KEYS": public(other)}
    miss = programs.run(*step, cwd=work, env=stranger)
    assert miss.status == 0
    assert "which is not trusted" in miss.err


def test_sign_leaves_manifests_and_other_signatures_alone(tmp_path: Path) -> None:
    first, second = keys(tmp_path, "first", "second")
    root = tmp_path / "cache"
    export(cachefs.open(root, signing_key=first), "main", "dev")
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    done = programs.run("sign", str(root), "--name", "main", "--key", str(second))
    assert (done.status, "signed 1 name" in done.out) == (0, True)
    assert {p: p.read_bytes() for p in before} == before
    assert len(signatures(root)) == 3
    reader = cachefs.open(root, signed_by=public(second))
    assert reader.load("main").records
    assert "for the name 'main'" in reasons(reader, "dev")


def test_azure_and_prefixes_have_signatures_below_their_own_prefix(moto_s3: S3Server) -> None:
    layout = cachefs.open(moto_s3.attributes(moto_s3.bucket(), prefix="ci/")).layout
    assert layout.signature_prefix == "ci/signatures/"
    azure = cachefs.open(
        "type=azblob,account_url=https://acme.blob.core.windows.net,container=builds,prefix=ci"
    ).layout
    assert azure.signature_prefix == "ci/signatures/"
    assert azure.identity == "acme:abfs://builds/ci/manifests/"


def test_names_are_listed_without_signatures_if_manifests_have_no_prefix(
    moto_s3: S3Server, tmp_path: Path
) -> None:
    (key,) = keys(tmp_path, "ci")
    location = moto_s3.attributes(moto_s3.bucket(), manifests_prefix="")
    export(cachefs.open(location, signing_key=key), "main", "signatures/notes")
    assert list(cachefs.open(location)) == ["main", "signatures/notes"]
    assert cachefs.open(location, signed_by=public(key)).load("signatures/notes").records


def test_keygen_makes_keys_that_only_their_owner_can_read(tmp_path: Path) -> None:
    done = programs.run("keygen", str(tmp_path / "ci"))
    assert (done.status, "SHA256:" in done.out) == (0, True)
    assert stat.S_IMODE((tmp_path / "ci").stat().st_mode) == 0o600
    before = (tmp_path / "ci").read_bytes()
    again = programs.run("keygen", str(tmp_path / "ci"))
    assert (again.status, "never overwritten" in again.err) == (2, True)
    assert (tmp_path / "ci").read_bytes() == before


@needs_ssh_keygen
def test_keygen_asks_for_a_passphrase_and_ssh_keygen_takes_it(tmp_path: Path) -> None:
    typed = b"secret words\nsecret words\n"
    path = tmp_path / "ci"
    done = programs.on_terminal("keygen", str(path), when="Passphrase", typed=typed)
    assert done.status == 0, done.out
    assert "secret words" not in done.out
    ask = ["ssh-keygen", "-y", "-f", path, "-P"]
    assert subprocess.run([*ask, "secret words"], capture_output=True, check=True).stdout
    assert subprocess.run([*ask, "wrong"], capture_output=True, check=False).returncode != 0
    (tmp_path / "ci.pub").unlink()
    with pytest.raises(cachefs.UsageError, match="passphrase"):
        cachefs.open(tmp_path, signing_key=path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no key"),
        ("ssh-ed25519 AAAA", "not of the type"),
        ("ssh-dss AAAAB3NzaC1kc3M=", "no key of the types"),
        ("ci frobnicate {key}", "option 'frobnicate' is not supported"),
        ('ci valid-before="soon" {key}', "is no time"),
        ('ci namespaces="git" {key}', "not for cachefs"),
        ("ci cert-authority {key}", "not supported"),
    ],
)
def test_a_trust_file_that_is_not_understood_is_an_error(
    tmp_path: Path, text: str, reason: str
) -> None:
    (key,) = keys(tmp_path, "ci")
    trust = tmp_path / "trust"
    trust.write_text(text.format(key=Path(public(key)).read_text()))
    with pytest.raises(cachefs.LocationError, match=reason):
        cachefs.open(tmp_path, signed_by=trust)


def test_a_private_key_is_not_taken_for_a_public_one_nor_shown(tmp_path: Path) -> None:
    (key,) = keys(tmp_path, "ci")
    with pytest.raises(cachefs.LocationError) as caught:
        cachefs.open(tmp_path, signed_by=key)
    assert "public" in str(caught.value)
    assert key.read_text().splitlines()[1][:20] not in str(caught.value)


def test_the_own_cache_needs_no_signatures(tmp_path: Path) -> None:
    """Everyone may demand signatures of shared caches in a profile; this cache is one's own."""
    (key,) = keys(tmp_path, "ci")
    step = ("run", "--output", "out", "--", "sh", "-c", "date +%N > out")
    environment = {"CACHEFS_TRUSTED_KEYS": public(key), "XDG_CACHE_HOME": str(tmp_path / "home")}
    work = tmp_path / "work"
    work.mkdir()
    assert programs.run(*step, cwd=work, env=environment).status == 0
    first = (work / "out").read_bytes()
    (work / "out").unlink()
    assert programs.run(*step, cwd=work, env=environment).status == 0
    assert (work / "out").read_bytes() == first


def test_signing_changes_nothing_that_builders_read(tmp_path: Path) -> None:
    (key,) = keys(tmp_path, "ci")
    root = tmp_path / "cache"
    location = f"type=local,dest={root}"
    export(cachefs.open(location), "main")
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    cachefs.open(location, signing_key=key).sign()
    assert {p: p.read_bytes() for p in before} == before
    assert len(signatures(root)) == 1


def test_an_age_without_keys_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(cachefs.LocationError, match="needs signed_by"):
        cachefs.open(tmp_path, signed_within="24h")


def test_a_project_s_keys_are_relative_to_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys(tmp_path, "ci")
    monkeypatch.chdir(tmp_path)
    location = cachefs.open(tmp_path / "cache", signed_by="ci.pub").location
    assert location.signing.signed_by == (str(tmp_path / "ci.pub"),)


def test_a_build_signs_its_results_and_takes_only_signed_ones(tmp_path: Path) -> None:
    key, other = keys(tmp_path, "ci", "other")

    def outcome(to: cachefs.Cache, came_from: list[cachefs.Cache]) -> str:
        with cachefs.Build(cache_to=to, cache_from=came_from, mode="max") as build:
            build.step(["sh", "-c", "echo hello > out"], outputs=["out"]).files()
        return build.report.steps[0].outcome

    root = tmp_path / "cache"
    writer = cachefs.open(root, signing_key=key, signed_by=public(key))
    assert outcome(writer, [writer]) == "ran"
    elsewhere = cachefs.open(tmp_path / "elsewhere")
    assert outcome(elsewhere, [cachefs.open(root, signed_by=public(other))]) == "ran"
    more = cachefs.open(tmp_path / "more")
    assert outcome(more, [cachefs.open(root, signed_by=public(key))]) == "hit"
