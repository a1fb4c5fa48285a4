"""The command line: what it prints, in separate processes and on terminals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import cachefs
from cachefs.cli.exits import MEANINGS, Exit, status_of
from cachefs.cli.main import COMMANDS, program
from cachefs.cli.output import age, size
from tests.programs import COLOURS, ESCAPES, Ended, on_terminal, run, start
from tests.servers.s3 import S3Server

LONG = "feature/a-name-that-somebody-thought-was-a-good-idea-at-the-time-of-writing/linux-arm64"


def call(*arguments: str) -> Result:
    """Run a command in this process: fast, but without what :func:`main` adds."""
    return CliRunner().invoke(program, arguments, standalone_mode=False, catch_exceptions=False)


@pytest.fixture
def keyed(recorded: Path, tmp_path: Path) -> Path:
    """A keyed cache of two names that may be damaged."""
    return Path(shutil.copytree(recorded / "s3" / "max", tmp_path / "keyed"))


@pytest.fixture
def oci(recorded: Path, tmp_path: Path) -> Path:
    """An OCI cache of two tags that may be damaged."""
    return Path(shutil.copytree(recorded / "local-max", tmp_path / "oci"))


# --- the program ---------------------------------------------------------------------------------


def test_help_names_every_command_and_exit_status() -> None:
    ended = run("--help")
    assert ended.status == 0
    assert ended.err == ""
    for name, (_, line) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", ended.out, re.MULTILINE)
    text = " ".join(ended.out.split())
    for status, meaning in MEANINGS.items():
        assert f"{int(status)} {meaning}" in text
    assert set(MEANINGS) == set(Exit)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_takes_the_common_options(name: str) -> None:
    found = program.get_command(click.Context(program), name)
    assert found is not None
    assert found.name == name
    # The standard output of "run" belongs to its command, so its report goes to a file, and that of
    # "cat" is the file.
    machine = {"run": "--report", "cat": "--result"}.get(name, "--json")
    assert {machine, "--verbose"} <= {option for p in found.params for option in p.opts}
    assert found.help


def test_version_and_bare_call() -> None:
    assert run("--version") == Ended(0, f"cachefs {cachefs.__version__}\n", "")
    assert run() == run("--help")


def test_statuses_of_errors() -> None:
    assert status_of(cachefs.LocationError("x")) == Exit.USAGE
    assert status_of(cachefs.DigestError("x")) == Exit.USAGE
    assert status_of(cachefs.NotFoundError("x")) == Exit.FAULTS
    assert status_of(cachefs.AccessError("x")) == Exit.STORE
    assert status_of(cachefs.UnreachableError("x")) == Exit.STORE
    assert status_of(cachefs.ManifestError("x")) == Exit.DAMAGED
    assert status_of(cachefs.IntegrityError("x")) == Exit.DAMAGED
    assert status_of(cachefs.CacheError("x")) == Exit.FAULTS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lss"], "No such command 'lss'"),
        (["copy", "nowhere-at-all"], "give SRC before it, or set $CACHEFS_CACHE"),
        (["copy", "a", "b", "--bad"], "--bad"),  # quoted or not, depending on the release of click
        (["ls", "type=s3,bukket=x"], "bukket"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(*arguments)
    assert ended.status == 2
    assert ended.out == ""
    assert re.fullmatch(r"cachefs: error: [^\n]+\n", ended.err)
    assert message in ended.err


def test_an_error_is_a_json_object_too() -> None:
    ended = run("ls", "--json", "type=s3,bukket=x")
    assert ended.status == 2
    error = json.loads(ended.out)["error"]
    assert set(error) == {"type", "message", "operation", "side", "key"}
    assert error["type"] == "LocationError"
    assert ended.err == f"cachefs: error: {error['message']}\n"


def test_a_reader_that_leaves_is_no_error(keyed: Path) -> None:
    with start("show", "--json", str(keyed)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written(keyed: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "cachefs", "ls", str(keyed)],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("cachefs: error: cannot write to standard output: No space")


def test_interrupted_while_the_store_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        where = f"type=s3,bucket=b,region=r,endpoint_url={endpoint},use_path_style=true"
        keys = "access_key_id=k,secret_access_key=s"
        with start("ls", f"{where},{keys}", start_new_session=True) as process:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "cachefs: interrupted\n")


# --- ls ------------------------------------------------------------------------------------------


def test_ls_in_a_pipe_is_plain_and_whole(keyed: Path) -> None:
    manifest = keyed / "manifests" / LONG
    manifest.parent.mkdir(parents=True)
    shutil.copy(keyed / "manifests" / "app", manifest)
    ended = run("ls", str(keyed))
    assert (ended.status, ended.err) == (0, "")
    *table, blank, total = ended.out.splitlines()
    heading, *rows = [re.split(r" {2,}", line) for line in table]
    assert heading == ["name", "written", "manifest", "layers", "records", "blobs"]
    assert [row[0] for row in rows] == ["app", "app-v2", LONG]
    assert rows[0][2:] == ["5.2 KiB", "9", "14", "1.7 KiB"]
    assert (blank, total) == ("", "total: 3 names; 11 blobs (2.0 KiB); 16.5 KiB of manifests")
    assert ended.out.isascii()
    assert "\x1b" not in ended.out


def test_ls_json_is_a_list_of_the_summaries(keyed: Path) -> None:
    listed = json.loads(call("ls", "--json", str(keyed)).stdout)
    assert [one["name"] for one in listed] == ["app", "app-v2"]
    assert listed[0]["layers"] == listed[0]["blobs"] == 9
    assert listed[0]["manifest_bytes"] == (keyed / "manifests" / "app").stat().st_size
    assert listed[0]["bytes"] == sum(
        (keyed / "blobs" / layer["blob"]).stat().st_size
        for layer in json.loads((keyed / "manifests" / "app").read_bytes())["layers"]
    )
    assert all(one["fault"] is None for one in listed)


def test_ls_of_tags(oci: Path) -> None:
    result = call("ls", str(oci))
    assert result.return_value == Exit.DONE
    assert [line.split()[0] for line in result.stdout.splitlines()[:3]] == ["name", "latest", "v2"]


def test_ls_of_nothing_says_so_on_standard_error(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    ended = run("ls", str(tmp_path))
    assert (ended.status, ended.out) == (0, "")
    assert ended.err == f"no names at {tmp_path}/: the cache is empty\n"
    assert run("ls", "--json", str(tmp_path)) == Ended(0, "[]\n", "")


def test_ls_tells_of_manifests_that_cannot_be_read(keyed: Path) -> None:
    (keyed / "manifests" / "app").write_bytes(b"{}x")
    ended = run("ls", str(keyed))
    assert (ended.status, ended.err) == (Exit.FAULTS, "")
    bad, good, _, total = ended.out.splitlines()[1:]
    assert total.startswith("total: 2 names, 1 of which cannot be read; 9 blobs ")
    assert bad.startswith("app ")
    assert "JSON" in bad
    assert good.startswith("app-v2 ")
    listed = json.loads(call("ls", "--json", str(keyed)).stdout)
    assert "JSON" in listed[0]["fault"]
    assert listed[1]["fault"] is None


def test_ls_tells_of_a_tag_without_its_manifest(oci: Path) -> None:
    index = json.loads((oci / "index.json").read_bytes())
    (oci / "blobs/sha256" / index["manifests"][0]["digest"][7:]).unlink()
    result = call("ls", "--json", str(oci))
    assert result.return_value == Exit.FAULTS
    assert sorted(one["fault"] is None for one in json.loads(result.stdout)) == [False, True]


def test_ls_of_a_name_that_is_not_there(keyed: Path) -> None:
    result = call("ls", "--json", f"type=fsspec,url=file://{keyed},name=app;nope")
    assert result.return_value == Exit.FAULTS
    faults = {one["name"]: one["fault"] for one in json.loads(result.stdout)}
    assert faults == {"app": None, "nope": "there is no such name"}


# --- show ----------------------------------------------------------------------------------------


def test_show_in_a_pipe_has_whole_digests(keyed: Path) -> None:
    result = call("show", str(keyed), "--name", "app")
    assert result.return_value == Exit.DONE
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "app: 14 records, 9 with a result; 9 layers, at most 5 in a chain; 1.7 KiB of blobs"
    )
    layers, records = "\n".join(lines[2:]).split("\n\n")
    rows = [re.split(r" {2,}", line.strip()) for line in layers.splitlines()]
    assert rows[0] == ["layer", "on", "blob", "size", "type", "made (UTC)"]
    config = json.loads((keyed / "manifests" / "app").read_bytes())
    stored = config["layers"]
    assert [next(cell for cell in row if ":" in cell) for row in rows[1:]] == [
        layer["blob"] for layer in stored
    ]
    assert "application/vnd.oci.image.layer.v1.tar+gzip" in rows[1]
    lines = records.splitlines()
    assert lines[0].split() == ["record", "digest", "inputs", "result"]
    assert [line.split()[1] for line in lines[1:]] == [one["digest"] for one in config["records"]]
    (built,) = [line for line in lines if line.startswith("     1 ")]
    assert re.split(r" {2,}", built.strip())[2:] == ["13, 3|7", "layer 4"]
    assert result.stdout.isascii()


def test_show_shows_all_names_or_those_of_the_location(keyed: Path) -> None:
    everything = json.loads(call("show", "--json", str(keyed)).stdout)
    assert [one["name"] for one in everything] == ["app", "app-v2"]
    assert len(everything[1]["records"]) == 17
    assert everything[0]["layers"][0]["media_type"].endswith("tar+gzip")
    one = json.loads(call("show", "--json", f"type=fsspec,url=file://{keyed},name=app").stdout)
    assert one == everything[:1]
    sections = call("show", str(keyed)).stdout.split("\n\n")
    assert [part.partition(":")[0] for part in sections[::3]] == ["app", "app-v2"]


def test_show_of_a_digest(oci: Path) -> None:
    digest = json.loads((oci / "index.json").read_bytes())["manifests"][1]["digest"]
    result = call("show", "--json", f"type=local,src={oci},digest={digest}")
    (only,) = json.loads(result.stdout)
    assert len(only["records"]) == 17


def test_show_of_a_damaged_manifest(keyed: Path) -> None:
    (keyed / "manifests" / "app").write_bytes(b"{}x")
    alone = run("show", "--json", str(keyed), "--name", "app")
    assert alone.status == Exit.DAMAGED
    error = json.loads(alone.out)["error"]
    assert (error["type"], error["operation"]) == ("ManifestError", "read")
    assert error["key"] == str(keyed / "manifests" / "app")
    among_others = call("show", "--json", str(keyed))
    assert among_others.return_value == Exit.FAULTS
    bad, good = json.loads(among_others.stdout)
    assert (bad["name"], bad["layers"], good["fault"]) == ("app", [], None)
    assert "JSON" in bad["fault"]


def test_show_of_a_name_that_is_not_there(oci: Path) -> None:
    ended = run("show", str(oci), "--name", "nope")
    assert (ended.status, ended.out) == (Exit.FAULTS, "")
    assert re.fullmatch(r"cachefs: error: [^\n]*no name nope; there are: latest, v2\n", ended.err)


# --- copy ----------------------------------------------------------------------------------------


def test_copy_says_what_it_did(oci: Path, recorded: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    first = run("copy", str(oci), str(target))
    assert (first.status, first.err) == (0, "")
    line = r"copied 2 names: latest, v2; sent (\d+) blobs \(2\.0 KiB\) in \d+\.\d s\n"
    found = re.fullmatch(line, first.out)
    assert found, first.out
    again = json.loads(call("copy", "--json", str(oci), str(target)).stdout)
    assert again["names"] == ["latest", "v2"]
    assert again["uploaded"] == {"blobs": 0, "bytes": 0}
    assert again["kept"]["blobs"] == int(found[1])
    assert again["error"] is None
    assert (target / "manifests/latest").read_bytes() == (
        recorded / "s3/max/manifests/app"
    ).read_bytes()


def test_copy_and_merge_say_what_the_store_copied_itself(
    seaweed_s3: S3Server, moto_s3: S3Server, oci: Path
) -> None:
    source, target = (seaweed_s3.attributes(seaweed_s3.bucket()) for _ in range(2))
    call("copy", str(oci), source)
    copied = run("copy", "--trust-store", source, target)
    (count,) = re.findall(r"; sent (\d+) blobs", copied.out)
    assert f"sent {count} blobs (2.0 KiB; {count} copied by the store and trusted)" in copied.out
    merged = run("merge", "--trust-store", source, f"{target},prefix=b/", "--into", "x", "--yes")
    assert f"sent {count} blobs (2.0 KiB; {count} copied by the store and trusted)" in merged.out
    # This server states the SHA-256 of what it copied.
    source, target = (moto_s3.attributes(moto_s3.bucket()) for _ in range(2))
    call("copy", str(oci), source)
    report = json.loads(call("copy", "--json", "--trust-store", source, target).stdout)
    assert report["uploaded"] == report["copied"] == {"blobs": int(count), "bytes": 2030}
    assert report["trusted"] == {"blobs": 0, "bytes": 0}


def test_copy_of_which_a_part_fails(keyed: Path, tmp_path: Path) -> None:
    (keyed / "manifests" / "app").write_bytes(b"{}x")
    ended = run("copy", "--json", str(keyed), str(tmp_path / "target"))
    assert ended.status == Exit.FAULTS
    report = json.loads(ended.out)
    assert report["names"] == ["app-v2"]
    assert report["uploaded"]["blobs"] == 9
    assert report["error"]["type"] == "CopyError"
    assert ended.err == f"cachefs: error: {report['error']['message']}\n"


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_s3_makes_no_noise(moto_s3: S3Server, oci: Path, engine: str) -> None:
    place = moto_s3.attributes(moto_s3.bucket(), engine=engine)
    copied = run("copy", "--json", str(oci), place)
    assert (copied.status, copied.err) == (0, "")
    assert json.loads(copied.out)["names"] == ["latest", "v2"]
    listed = run("ls", place)
    assert (listed.status, listed.err) == (0, "")
    assert len(listed.out.splitlines()) == 5
    missing = run("show", place, "--name", "nope")
    assert missing.status == Exit.FAULTS
    assert missing.err.count("\n") == 1


def test_a_store_that_does_not_answer(unused_port: int) -> None:
    ended = run(
        "-v",
        "ls",
        f"type=s3,bucket=b,region=r,endpoint_url=http://127.0.0.1:{unused_port},"
        "retry_max_attempts=1,access_key_id=k,secret_access_key=a-real-secret",
    )
    assert (ended.status, ended.out) == (Exit.STORE, "")
    error, *causes = ended.err.splitlines()
    assert error.startswith("cachefs: error: ")
    assert causes, "--verbose names the causes"
    assert all(re.fullmatch(r"cachefs: debug: caused by [\w.]+", cause) for cause in causes)
    assert "a-real-secret" not in ended.err


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is bound but not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


# --- on a terminal -------------------------------------------------------------------------------


def test_tables_fit_the_terminal(keyed: Path) -> None:
    manifest = keyed / "manifests" / LONG
    manifest.parent.mkdir(parents=True)
    shutil.copy(keyed / "manifests" / "app", manifest)
    for columns in (70, 80, 120):
        shown = on_terminal("ls", str(keyed), columns=columns, NO_COLOR="1")
        assert shown.status == 0
        lines = [ESCAPES.sub("", line) for line in shown.out.splitlines()]
        assert max(map(len, lines)) <= columns
        assert LONG in "".join(line.split(" ")[0] for line in lines), "folded, not cut"


def test_a_terminal_gets_short_digests_and_the_fault_below_the_table(keyed: Path) -> None:
    shown = on_terminal("show", str(keyed), "--name", "app", NO_COLOR="1").out
    digest = json.loads((keyed / "manifests" / "app").read_bytes())["layers"][0]["blob"]
    assert digest[:19] in shown
    assert digest not in shown
    (keyed / "manifests" / "app").write_bytes(b"{}x")
    listed = on_terminal("ls", str(keyed), columns=200, NO_COLOR="1")
    assert listed.status == Exit.FAULTS
    assert listed.out.splitlines()[-3].startswith("app: read ")


def test_colours_respect_no_color(keyed: Path) -> None:
    target = str(keyed.parent / "target")
    plain = on_terminal("copy", str(keyed), target, NO_COLOR="1")
    assert not COLOURS.search(plain.out)
    drawn = on_terminal("copy", str(keyed), target + "-2")
    assert COLOURS.search(drawn.out)


def test_a_bar_on_a_terminal(keyed: Path, tmp_path: Path) -> None:
    shown = on_terminal("copy", str(keyed), str(tmp_path / "target"))
    assert shown.status == 0
    assert "copying" in shown.out
    assert ESCAPES.sub("", shown.out.splitlines()[-1]).startswith("copied 2 names")


# --- words ---------------------------------------------------------------------------------------


def test_amounts_as_people_read_them() -> None:
    assert [size(0), size(1), size(1023), size(1536), size(5 * 2**40)] == [
        "0 B",
        "1 B",
        "1023 B",
        "1.5 KiB",
        "5.0 TiB",
    ]
    assert age(None) == "unknown"
    assert age(0).endswith("years ago")
    days = [20, 29, 31, 45, 200]
    assert [age(time.time() - 86_400 * n - 60) for n in days] == [f"{n} days ago" for n in days]


def test_text_from_a_cache_does_not_reach_the_terminal_as_commands(keyed: Path) -> None:
    manifest = keyed / "manifests" / "app"
    spoiled = manifest.read_bytes().replace(b"tar+gzip", b"tar\\u001b]0;owned\\u0007")
    manifest.write_bytes(spoiled)
    shown = on_terminal("show", str(keyed), "--name", "app", NO_COLOR="1").out
    assert "\\x1b]0;" in shown
    assert "\x1b]0;" not in shown


# --- what is not known is not told as if it were --------------------------------------------------


def test_a_sample_that_has_no_blob_says_so(keyed: Path) -> None:
    sampled = call("verify", str(keyed), "--read-data=0.0001%")
    assert sampled.return_value == Exit.DONE
    assert sampled.stdout.splitlines()[-1] == (
        "today's sample of 0.0001 % has none of the blobs: none was read"
    )
    assert "sample" not in call("verify", str(keyed), "--read-data").stdout
    assert "sample" not in call("verify", str(keyed)).stdout


def test_age_classes_are_apart(keyed: Path) -> None:
    blobs = sorted((keyed / "blobs").iterdir())
    for blob, days in zip(blobs, (0.5, 3, 10, 10, 40), strict=False):
        then = time.time() - days * 86_400
        os.utime(blob, (then, then))
    table = call("du", str(keyed)).stdout.partition("age of blobs")[2]
    rows = [re.split(r" {2,}", line) for line in table.splitlines()[1:5]]
    assert [row[0] for row in rows] == [
        "less than 1 day",
        "1 to 7 days",
        "7 to 30 days",
        "30 days or more",
    ]
    assert [int(row[2]) for row in rows] == [len(blobs) - 4, 1, 2, 1]


def test_an_unknown_size_is_not_zero(tmp_path: Path) -> None:
    graph = cachefs.RecordGraph()
    step = graph.add("sha256:" + "5" * 64)
    blob = cachefs.Digest.of(b"layer")
    graph.add_result(step, graph.add_layer(blob))
    cachefs.open(tmp_path / "cache").export(graph, {blob: b"layer"}, "app")
    for language in ("mermaid", "dot"):
        drawn = call("graph", str(tmp_path / "cache"), "--format", language).stdout
        assert "size unknown" in drawn
        assert "0 bytes" not in drawn
    assert "  unknown  " in call("show", str(tmp_path / "cache")).stdout
