"""What a result is goes with it, and says why another run missed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import cachefs
from cachefs.building.commit import commit_of
from cachefs.building.describing import MOST_FILES, grouped, grouped_like
from cachefs.errors import IntegrityError
from cachefs.keying.keys import Entry
from cachefs.running.policy import Policy
from cachefs.wire import description
from tests.running.in_place import run

SCRIPT = "cat src/* > out"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    (place / "src").mkdir(parents=True)
    (place / "src" / "a").write_text("1")
    (place / "src" / "b").write_text("2")
    return place


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return Policy(cache=(str(tmp_path / "cache"),), explain=True)


def described(policy: Policy) -> list[cachefs.Description]:
    cache = cachefs.open(policy.cache[0])
    return [
        one.description for name in cache.names() for one in cache.describe(name.name).described
    ]


def test_a_result_says_what_it_is(
    place: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    ran = run(
        place,
        f"{SCRIPT}; : --token hunter2",
        "out",
        inputs=("src",),
        policy=policy,
        variables=("SECRET", "UNSET"),
    )
    (one,) = described(policy)
    assert one.command == ["sh", "-c", f"{SCRIPT}; : --token ***"]
    assert (one.outputs, one.inputs.keys(), one.files["src"].keys()) == (
        ["out"],
        {"src"},
        {"a", "b"},
    )
    assert one.variables["UNSET"] is None
    assert len(one.variables["SECRET"] or "") == 3
    assert 0 < one.seconds <= ran.report.seconds
    stored = b"".join(path.read_bytes() for path in Path(str(policy.cache[0])).rglob("sha256:*"))
    assert b"hunter2" not in stored
    hit = run(
        place,
        f"{SCRIPT}; : --token hunter2",
        "out",
        inputs=("src",),
        policy=policy,
        variables=("SECRET", "UNSET"),
    )
    assert hit.outcome == "hit"
    assert hit.report.saved == one.seconds


def test_the_description_changes_neither_keys_nor_layers(
    place: Path, policy: Policy, tmp_path: Path
) -> None:
    run(place, SCRIPT, "out", inputs=("src",), policy=policy)
    plain = Policy(cache=(str(tmp_path / "plain"),), describe=False)
    run(place, SCRIPT, "out", inputs=("src",), policy=plain)
    assert described(plain) == []
    graphs = []
    for one in (policy, plain):
        cache = cachefs.open(one.cache[0])
        graphs.append(cache.load([name.name for name in cache.names()]))
    assert [name.name for name in cachefs.open(policy.cache[0]).names()] == [
        name.name for name in cachefs.open(plain.cache[0]).names()
    ]
    assert {r.digest for r in graphs[0].records} == {r.digest for r in graphs[1].records}
    assert graphs[1].blobs().keys() < graphs[0].blobs().keys()
    for one in (policy, plain):
        again = run(place, SCRIPT, "out", inputs=("src",), policy=one)
        assert (again.outcome, again.report.why) == ("hit", [])


@pytest.mark.parametrize("to", ["{}", "type=local,dest={}"])
def test_copies_merges_and_prunes_carry_it(
    place: Path, policy: Policy, tmp_path: Path, to: str
) -> None:
    run(place, SCRIPT, "out", inputs=("src",), policy=policy)
    (one,) = described(policy)
    source = cachefs.open(policy.cache[0])
    (name,) = source.names()
    copied = cachefs.open(to.format(tmp_path / "copied"))
    cachefs.copy(source, copied)
    cachefs.merge([source.with_names(name.name)], copied.with_names("all"))
    copied.prune(grace=0.0)
    assert copied.verify(read_data=1.0).faults == []
    for there in (name.name, "all"):
        assert [each.description for each in copied.describe(there).described] == [one]
    hit = run(
        place, SCRIPT, "out", inputs=("src",), policy=Policy(cache=(copied.location,), name="all")
    )
    assert (hit.outcome, hit.report.saved > 0) == ("hit", True)


def test_a_lost_description_loses_no_result(place: Path, policy: Policy, tmp_path: Path) -> None:
    run(place, SCRIPT, "out", inputs=("src",), policy=policy)
    blobs = Path(str(policy.cache[0])) / "blobs"
    (lost,) = [path for path in blobs.iterdir() if path.read_bytes().startswith(b'{"command"')]
    lost.unlink()
    first = str(tmp_path / "first")
    both = Policy(cache=(first, *policy.cache))
    (place / "out").unlink()  # what is in place is not fetched
    assert run(place, SCRIPT, "out", inputs=("src",), policy=both).outcome == "hit"
    assert described(policy) == []
    assert cachefs.open(first).verify(read_data=1.0).faults == []
    only = Policy(cache=(first,))
    assert run(place, SCRIPT, "out", inputs=("src",), policy=only).outcome == "hit"


@pytest.mark.parametrize(
    "hostile",
    [b"", b"[]", b'{"command": "text"}', b'{"command": [1]}', b"[" * 100_000, b'{"seconds": "x"}'],
)
def test_a_description_that_is_not_valid_is_refused(hostile: bytes) -> None:
    with pytest.raises(IntegrityError):
        description.decode(hostile)


# --- why it missed ------------------------------------------------------------------------------


def elsewhere(home: Path) -> None:
    """Forget what this machine knows, as if it had never run anything."""
    shutil.rmtree(home / ".cache" / "cachefs")


def test_another_machine_is_told_what_differs(
    place: Path, policy: Policy, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODE", "hunter2")
    variables = ("MODE", "OTHER")
    run(place, SCRIPT, "out", inputs=("src",), policy=policy, variables=variables)
    elsewhere(nobodys_home)
    monkeypatch.setenv("MODE", "debug")
    (place / "src" / "a").write_text("3")
    (place / "src" / "b").unlink()
    (place / "src" / "c").write_text("4")
    ran = run(
        place, SCRIPT, "out", inputs=("src", "src/c"), policy=policy, variables=("MODE", "NEW")
    )
    which, *why = ran.report.why
    assert which.startswith("compared with the result of ")
    assert str(policy.cache[0]) in which
    assert why == [
        "input src changed: a changed, b removed, c added",
        "input src/c is new",
        "environment variable MODE changed",
        "environment variable NEW is new",
        "environment variable OTHER was removed",
    ]


def test_the_nearest_result_is_compared_with(
    place: Path, policy: Policy, nobodys_home: Path
) -> None:
    for text in ("other", "1"):
        (place / "src" / "a").write_text(text)
        (place / "src" / "b").write_text(text)
        run(place, SCRIPT, "out", inputs=("src",), policy=policy)
    elsewhere(nobodys_home)
    (place / "src" / "a").write_text("3")
    (place / "src" / "b").write_text("other")
    ran = run(place, SCRIPT, "out", inputs=("src",), policy=policy)
    assert ran.report.why[1:] == ["input src changed: a changed"]


def test_declared_outputs_and_masked_words_are_told(
    place: Path, policy: Policy, nobodys_home: Path
) -> None:
    script = "echo > out; echo > other"
    run(place, script, "out", policy=policy)
    elsewhere(nobodys_home)
    ran = run(place, script, "out", "other", policy=policy)
    assert ran.report.why[1:] == ["the declared outputs differ: other added"]


def test_a_plain_miss_reads_nothing_more(place: Path, policy: Policy) -> None:
    plain = Policy(cache=policy.cache)
    run(place, SCRIPT, "out", inputs=("src",), policy=plain)
    (place / "src" / "a").write_text("3")
    ran = run(place, SCRIPT, "out", inputs=("src",), policy=plain)
    assert ran.report.why == ["input src changed: a changed"]  # from this machine's history


def test_many_files_are_told_by_directory() -> None:
    files = {
        f"{top}/{below}/{name}".encode(): Entry("f", name.to_bytes(32, "big"))
        for top in "ab"
        for below in range(10)
        for name in range(50)
    } | {b"a": Entry("d", b""), b"top": Entry("f", b"x")}
    files |= {f"a/{below}".encode(): Entry("d", b"") for below in range(10)}
    known = grouped(files, MOST_FILES)
    assert len(known) == 21
    assert {"a/0/", "b/9/", "top"} < known.keys()
    assert grouped_like(files, known) == known
    files[b"a/3/7"] = Entry("x", bytes(32))
    files[b"new"] = Entry("f", b"y")
    now = grouped_like(files, known)
    assert {name for name in now if now[name] != known.get(name)} == {"a/3/", "new"}
    assert grouped({f"{n}".encode(): Entry("f", b"") for n in range(500)}, 400).keys() == {"/"}


# --- the commit ---------------------------------------------------------------------------------


def git(place: Path, *words: str) -> str:
    settings = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        [shutil.which("git") or "git", *settings, *words],
        cwd=place,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_the_commit_is_that_of_git(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    main = tmp_path / "main"
    (main / "below").mkdir(parents=True)
    assert commit_of(main) == ""
    git(main, "init", "-q", "-b", "main", ".")
    assert commit_of(main / "below") == ""
    git(main, "commit", "-q", "--allow-empty", "-m", "one")
    head = git(main, "rev-parse", "HEAD")
    assert commit_of(main / "below") == head
    git(main, "pack-refs", "--all")
    assert commit_of(main) == head
    git(main, "worktree", "add", "-q", "-b", "other", "../tree")
    git(tmp_path / "tree", "commit", "-q", "--allow-empty", "-m", "two")
    assert commit_of(tmp_path / "tree") == git(tmp_path / "tree", "rev-parse", "HEAD") != head
    git(main, "checkout", "-q", "--detach")
    assert commit_of(main) == head


@pytest.mark.parametrize("head", ["", "ref: ../../secret", "ref: refs/heads/none", "x" * 40, "\0"])
def test_a_strange_repository_has_no_commit(tmp_path: Path, head: str) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(head)
    assert commit_of(tmp_path) == ""
