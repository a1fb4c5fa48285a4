"""Every command and every Python snippet in the README and the documentation is run.

The blocks of a page are run in order, in one empty directory, with ``cachefs`` in PATH and an S3
server with the buckets ``builds`` and ``other``. HTML comments, which readers do not see, say what
a block needs:

``<!-- setup: COMMANDS -->``
    run before the next block.
``<!-- not run: REASON -->``
    the next block needs something that is not available here. Its ``cachefs`` commands are still
    parsed, including all options and attributes, its Python is compiled, its YAML is parsed.

``<!-- output -->``
    the next block is what the block before it prints. What differs from run to run (times, sizes
    of compressed layers, digests) is not compared. With the option ``--write-outputs`` of pytest,
    what was printed is written into the pages.

A TOML block that begins with the comment ``# cachefs.toml`` is written to that file. A block in an
unknown language fails.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import yaml
from markdown_it import MarkdownIt

import cachefs
from cachefs.cli.main import program
from cachefs.running.project import FILE
from tests.servers.s3 import S3Server

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
SHOWN = {"text", "json", "mermaid", "dockerfile", "toml", "{toctree}", "{eval-rst}", ""}
"""Languages of blocks that are only shown."""

_SETUP = re.compile(r"<!-- setup: (.*?) -->", re.DOTALL)
_NOT_RUN = re.compile(r"<!-- (?:not run: .+?|test-command) -->", re.DOTALL)


class Block(NamedTuple):
    """A fenced block.

    ``setup`` runs before it, ``run`` says whether it can run here, and ``output`` that it is what
    the block before it prints. Its text follows line ``line``, counted from 1.
    """

    language: str
    text: str
    line: int
    setup: str
    run: bool
    output: bool = False


def blocks(page: Path) -> Iterator[Block]:
    setup, run, output = "", True, False
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "html_block":
            setup += "".join(f"{found}\n" for found in _SETUP.findall(token.content))
            run = run and not _NOT_RUN.search(token.content)
            output = "<!-- output -->" in token.content
        elif token.type == "fence":
            line = token.map[0] + 1 if token.map else 0
            language = token.info.strip().split(" ")[0]
            yield Block(language, token.content, line, setup, run, output)
            setup, run, output = "", True, False


def id_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_the_page_does_what_it_says(
    page: Path, tmp_path: Path, moto_s3: S3Server, request: pytest.FixtureRequest
) -> None:
    reader = Reader(id_of(page), tmp_path, moto_s3)
    for block in blocks(page):
        reader.read(block)
    if request.config.getoption("--write-outputs"):
        write_outputs(page, reader.outputs)
        return
    for block, text in reader.outputs:
        expected, actual = comparable(block.text), comparable(text)
        assert actual == expected, f"{id_of(page)}:{block.line}: run with --write-outputs"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_the_page_does_the_same_with_obstore(
    page: Path, tmp_path: Path, moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "s3" not in page.read_text():
        pytest.skip("it uses no S3")
    monkeypatch.setenv("CACHEFS_ENGINE", "obstore")
    reader = Reader(id_of(page), tmp_path, moto_s3)
    for block in blocks(page):
        reader.read(block)
    assert all(comparable(block.text) == comparable(text) for block, text in reader.outputs)


class Reader:
    """Somebody who does what a page says, block by block, in one directory.

    Attributes:
        outputs: the blocks that show an output, with what was printed.
    """

    def __init__(self, page: str, folder: Path, server: S3Server) -> None:
        self._page, self._folder, self._server = page, folder, server
        self._is_prepared = False
        self._python: list[str] = []
        self._printed = ""
        self.outputs: list[tuple[Block, str]] = []

    def read(self, block: Block) -> None:
        if block.output:
            self.outputs.append((block, shown(self._printed, self._folder)))
        elif is_file(block) or block.language not in SHOWN:
            self._do(block, f"{self._page}:{block.line}")

    def _do(self, block: Block, where: str) -> None:
        if block.language not in CHECKS:
            pytest.fail(f"{where}: there is no check for {block.language!r}")
        CHECKS[block.language](block, where)
        if block.run and not self._is_prepared:
            prepare(self._folder, self._server)
            self._is_prepared = True
        if block.setup:
            self._shell(block.setup, where)
        if is_file(block):
            (self._folder / FILE).write_text(block.text)
        if block.run and block.language in {"sh", "console"}:
            self._printed = self._shell(block.text, where)
        if block.run and block.language == "python":
            # A page's snippets build on each other, so each runs after those before it.
            self._python.append(block.text)
            text = "\nprint(chr(30), end='')\n".join(self._python)
            words = [sys.executable, "-W", "error::SyntaxWarning", "-c", text]
            printed = finish(words, self._folder, self._server, where)
            self._printed = printed.rpartition(chr(30))[2]

    def _shell(self, text: str, where: str) -> str:
        words = ["bash", "-c", f"set -euo pipefail\n{text}"]
        return finish(words, self._folder, self._server, where)


def shown(text: str, folder: Path) -> str:
    """What a page shows of an output: no path of this machine."""
    return text.replace(str(folder), "/home/you").strip("\n") + "\n"


_VARYING = [
    (re.compile(r"sha256:[0-9a-f]{8,64}|\b[0-9a-f]{16,64}\b"), "DIGEST"),
    (re.compile(r"\d+(\.\d+)? (s|ms|B|bytes|KiB|MiB|GiB)\b(/s)?"), "N"),
    (re.compile(r"\bnow\b|\b(an?|\d+) (second|minute)s? ago"), "AGO"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d( UTC)?"), "TIME"),
    (re.compile(r" by [\w.-]+(?=, commit| in )"), " by HOST"),
    (re.compile(r", commit [0-9a-f]{7,40}"), ""),
    (re.compile(r" +"), " "),
]
"""What differs from run to run, also the width of columns that hold such things."""


def comparable(text: str) -> str:
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text


def write_outputs(page: Path, outputs: list[tuple[Block, str]]) -> None:
    """Replace the outputs in the page that differ by more than what varies."""
    lines = page.read_text().splitlines(keepends=True)
    for block, text in reversed(outputs):
        if comparable(block.text) != comparable(text):
            lines[block.line : block.line + block.text.count("\n")] = [text]
    page.write_text("".join(lines))


def prepare(folder: Path, server: S3Server) -> None:
    tests_data = folder / "tests" / "data"
    tests_data.mkdir(parents=True)
    (tests_data / "buildkit-caches").symlink_to(ROOT / "tests" / "data" / "buildkit-caches")
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    for bucket in ("builds", "other"):
        server.client.create_bucket(Bucket=bucket)
        for key in server.keys(bucket):
            server.client.delete_object(Bucket=bucket, Key=key)


def environment(folder: Path, server: S3Server) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "AWS_ENDPOINT_URL": server.endpoint_url,
        "AWS_ACCESS_KEY_ID": server.access_key_id,
        "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
        "AWS_REGION": server.region,
    }


def finish(argv: list[str], folder: Path, server: S3Server, where: str) -> str:
    """Run to the end, and return what it printed."""
    with subprocess.Popen(
        argv,
        cwd=folder,
        env=environment(folder, server),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # including its children
            raise
    assert process.returncode == 0, f"{where} ended with {process.returncode}:\n{output}"
    return output


def check_shell(block: Block, where: str) -> None:
    """Parse its cachefs commands: options, and the attributes of locations."""
    joined = re.sub(r"\$\{\{.*?\}\}", "x", block.text.replace("\\\n", " "))
    for line in joined.splitlines():
        for command in re.split(r"&&|;|\||\bdo\b", line.removeprefix("$ ")):
            try:
                words = shlex.split(command, comments=True)
            except ValueError:
                continue  # part of a quoted text, not a command
            if words and words[0].rpartition("/")[2] == "cachefs":
                parse(words[1:], where)


def parse(words: list[str], where: str) -> None:
    if not words or words[0].startswith("-"):
        return
    context = click.Context(program, info_name="cachefs", **program.context_settings)
    command = program.get_command(context, words[0])
    assert command is not None, f"{where}: there is no command {words[0]}"
    arguments = [re.sub(r"\$\{?\w+\}?", "x", word) for word in words[1:]]
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    try:
        command.make_context(words[0], arguments, parent=context)
    except click.exceptions.Exit:  # --help
        return
    except (click.ClickException, cachefs.CacheError) as error:
        pytest.fail(f"{where}: {' '.join(words)}: {error}")


def is_file(block: Block) -> bool:
    """Whether it is a ``cachefs.toml``, which is written for the blocks after it."""
    return block.language == "toml" and block.text.startswith(f"# {FILE}\n")


def check_toml(block: Block, where: str) -> None:
    assert tomllib.loads(block.text), f"{where} is empty"


def check_python(block: Block, where: str) -> None:
    ast.parse(block.text, where)


class CILoader(yaml.SafeLoader):
    """YAML with the tag by which files of GitLab use parts of others."""


CILoader.add_constructor("!reference", CILoader.construct_yaml_seq)


def check_yaml(block: Block, where: str) -> None:
    assert yaml.load(block.text, CILoader), f"{where} is empty"  # noqa: S506 - it is a safe loader
    for line in block.text.splitlines():
        script = line.strip().removeprefix("- ").removeprefix("run: ")
        check_shell(block._replace(text=script), where)


CHECKS: dict[str, Callable[[Block, str], None]] = {
    "sh": check_shell,
    "console": check_shell,
    "python": check_python,
    "yaml": check_yaml,
    "toml": check_toml,
}


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: no store -->\n```sh\ncachefs ls type=s3,bukket=x\n```\n")
    (block,) = blocks(page)
    assert not block.run
    with pytest.raises(pytest.fail.Exception, match="bukket"):
        check_shell(block, "page.md:2")
    with pytest.raises(pytest.fail.Exception, match="no-such"):
        check_shell(block._replace(text="cachefs ls --no-such x"), "page.md:2")
