"""Two small projects for comparing build caches: C with a Makefile, and a Python package.

Each has one command that makes everything. They are written by this module, so that a benchmark
needs no network; their size is that of a small real project.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Project:
    """A project.

    Attributes:
        name: as in tables.
        suffix: of its sources.
        command: what makes everything.
        inputs: what the command reads.
        output: the directory that it makes.
    """

    name: str
    suffix: str
    command: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str


C: Final = Project("C", ".c", ("make", "-s", "-j2"), ("src", "Makefile"), "build")
PYTHON: Final = Project("Python", ".py", (sys.executable, "build.py"), ("src", "build.py"), "dist")

_MAKEFILE: Final = """\
CC = gcc
CFLAGS = -O2 -Isrc
SOURCES = $(sort $(wildcard src/*.c))
OBJECTS = $(SOURCES:src/%.c=build/%.o)

build/program: $(OBJECTS)
\tgcc -o $@ $^

build/%.o: src/%.c src/common.h
\t@mkdir -p build
\t$(CC) $(CFLAGS) -c -o $@ $<
"""

_HEADER: Final = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
"""

_C_FUNCTION: Final = """
int {name}(int count) {{
    char buffer[256];
    int total = {number};
    for (int row = 0; row < count; row++) {{
        for (int column = 0; column < {number} % 37 + 3; column++) {{
            total += (row * {number} + column) % 97;
            if (total % 7 == 0) snprintf(buffer, sizeof buffer, "%d %d", row, total);
            else memset(buffer, column, sizeof buffer);
            total ^= buffer[(row + column) % 256];
        }}
    }}
    return total;
}}
"""

_PYTHON_FUNCTION: Final = '''
def {name}(count):
    """The sum of some remainders."""
    total = {number}
    for row in range(count):
        for column in range({number} % 37 + 3):
            total += (row * {number} + column) % 97
            if total % 7 == 0:
                total ^= len(f"{{row}} {{total}}")
    return total
'''

_BUILD: Final = """\
import compileall, pathlib, shutil, subprocess, sys, zipapp

out = pathlib.Path("dist")
shutil.rmtree(out, ignore_errors=True)
shutil.copytree("src", out / "package", ignore=shutil.ignore_patterns("__pycache__"))
compileall.compile_dir(out / "package", quiet=2, workers=1, invalidation_mode=
                       __import__("py_compile").PycInvalidationMode.UNCHECKED_HASH)
zipapp.create_archive(out / "package", out / "program.pyz", main="part_0:main")
subprocess.run([sys.executable, out / "program.pyz"], check=True)
"""


def write(project: Project, root: Path, files: int) -> None:
    """Write the project with so many source files into a new directory."""
    (root / "src").mkdir(parents=True)
    for number in range(files):
        _source(project, root, number).write_text(_content(project, number, files))
    if project is C:
        (root / "Makefile").write_text(_MAKEFILE)
        (root / "src" / "common.h").write_text(_HEADER)
    else:
        (root / "build.py").write_text(_BUILD)
    _write_settings(project, root)


def edit(project: Project, root: Path, edits: int) -> None:
    """Add a function to one of the sources, a different one each time."""
    function = _C_FUNCTION if project is C else _PYTHON_FUNCTION
    with _source(project, root, 1).open("a") as file:
        file.write(function.format(name=f"edited_{edits}", number=edits))


def _source(project: Project, root: Path, number: int) -> Path:
    return root / "src" / f"part_{number}{project.suffix}"


def _content(project: Project, number: int, files: int) -> str:
    function = _C_FUNCTION if project is C else _PYTHON_FUNCTION
    functions = "".join(
        function.format(name=f"work_{number}_{index}", number=number * 31 + index)
        for index in range(4 if project is C else 12)
    )
    if project is C:
        main = "int main(void) { return 0; }\n" if number == 0 else ""
        return f'#include "common.h"\n{functions}{main}'
    imports = "".join(f"    import part_{other}\n" for other in range(1, files))
    main = f"\n\ndef main():\n{imports}    work_0_0(9)\n" if number == 0 else ""
    return f"{functions}{main}"


def _write_settings(project: Project, root: Path) -> None:
    """What DVC and Turborepo read."""
    words = " ".join(project.command)
    stage = [
        "stages:",
        "  build:",
        f"    cmd: {words}",
        "    deps:",
        *(f"      - {name}" for name in project.inputs),
        "    outs:",
        f"      - {project.output}",
    ]
    (root / "dvc.yaml").write_text("\n".join([*stage, ""]))
    inputs = ["src/**", *project.inputs[1:]]
    tasks = {"build": {"inputs": inputs, "outputs": [f"{project.output}/**"]}}
    (root / "turbo.json").write_text(json.dumps({"tasks": tasks}))
    package = {"name": "project", "packageManager": "npm@10.0.0", "scripts": {"build": words}}
    (root / "package.json").write_text(json.dumps(package))
    lock = {"name": "project", "lockfileVersion": 3, "packages": {"": {"name": "project"}}}
    (root / "package-lock.json").write_text(json.dumps(lock))
