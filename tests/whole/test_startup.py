"""What is imported, and what is not, before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.s3 import S3Server

BACK_ENDS = {
    "adlfs",
    "aiobotocore",
    "boto3",
    "botocore",
    "gcsfs",
    "obstore",
    "paramiko",
    "s3fs",
}
DRAWING = {"humanize", "rich"}

HELP = """
import sys
sys.argv[1:] = {arguments!r}
from cachefs.cli.main import main
try:
    main()
except SystemExit as ended:
    assert not ended.code
"""


def modules(program: str) -> set[str]:
    """The modules that a program has loaded when it ends."""
    told = f"{program}\nimport json, sys\nprint(json.dumps(list(sys.modules)), file=sys.stderr)"
    ended = subprocess.run(
        [sys.executable, "-c", told], check=True, text=True, capture_output=True, timeout=60
    )
    return set(json.loads(ended.stderr.splitlines()[-1]))


def loaded(program: str) -> set[str]:
    """The top-level modules among them."""
    return {name.partition(".")[0] for name in modules(program)}


def test_import_loads_neither_the_command_line_nor_a_filesystem() -> None:
    assert not loaded("import cachefs") & (BACK_ENDS | DRAWING | {"click", "fsspec", "msgspec"})


def test_opening_a_local_cache_loads_no_back_end() -> None:
    program = "import cachefs; cachefs.open('/nowhere').names()"
    assert not loaded(program) & (BACK_ENDS | DRAWING | {"click"})


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_help_loads_no_filesystem_and_nothing_that_draws(arguments: list[str]) -> None:
    found = loaded(HELP.format(arguments=arguments))
    assert "click" in found
    assert not found & (BACK_ENDS | DRAWING | {"fsspec", "msgspec"})


NOT_FOR_A_HIT = {
    # libraries that take long to load
    "difflib",
    "filelock",
    "fsspec",
    "importlib.metadata",
    "multiprocessing",
    # what makes a result, and what restores and explains one
    "cachefs.building.actions",
    "cachefs.building.executors",
    "cachefs.building.remote",
    "cachefs.layers.extracting",
    "cachefs.layers.packing",
    "cachefs.running.explaining",
    "cachefs.user_cache.bounding",
    # other kinds of caches, and what is done to whole caches
    "cachefs.filesystems.obstore",
    "cachefs.filesystems.registry",
    "cachefs.filesystems.s3",
    "cachefs.layout.oci",
    "cachefs.operations",
}


def test_a_hit_in_a_directory_with_its_outputs_in_place_loads_only_what_it_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").write_text("content")
    words = ["run", "--cache=cache", "--input=in", "--output=out", "--", "cp", "in", "out"]
    stored = modules(HELP.format(arguments=words))
    assert "cachefs.layers.packing" in stored
    assert not {name.partition(".")[0] for name in stored} & (BACK_ENDS | DRAWING | {"fsspec"})
    hit = modules(HELP.format(arguments=[*words[:1], "--explain", *words[1:]]))
    assert "cachefs.running.command" in hit
    assert not hit & NOT_FOR_A_HIT


def test_a_command_begins_in_a_directory_and_goes_on_with_a_server(
    tmp_path: Path, moto_s3: S3Server
) -> None:
    """fsspec is loaded in the middle, and takes over the loop in which the command began."""
    (tmp_path / "in").write_text("content")
    shared = moto_s3.attributes(moto_s3.bucket())
    words = ["--input=in", "--output=out", "--", "cp", "in", "out"]

    def told(local: str) -> str:
        caches = [f"--cache={local}", f"--cache={shared}"]
        program = [sys.executable, "-m", "cachefs", "run", "--explain", *caches, *words]
        ended = subprocess.run(
            program, check=True, text=True, capture_output=True, timeout=60, cwd=tmp_path
        )
        return ended.stderr

    assert "cachefs: hit" not in told("one")
    (tmp_path / "out").unlink()
    assert "cachefs: hit" in told("other")  # which is empty, so it is the server's
    assert (tmp_path / "out").read_text() == "content"
    assert any((tmp_path / "other" / "manifests").iterdir())
