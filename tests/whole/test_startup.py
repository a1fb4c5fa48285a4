"""What is imported, and what is not, before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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


def loaded(program: str) -> set[str]:
    """The top-level modules that a program has loaded when it ends."""
    told = f"{program}\nimport json, sys\nprint(json.dumps(list(sys.modules)), file=sys.stderr)"
    ended = subprocess.run(
        [sys.executable, "-c", told], check=True, text=True, capture_output=True, timeout=60
    )
    return {name.partition(".")[0] for name in json.loads(ended.stderr.splitlines()[-1])}


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
