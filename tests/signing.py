"""Signed caches for tests, and a second implementation that checks them by ssh-keygen alone."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import cachefs
from cachefs.testing import random_graph
from cachefs.trust.keys import generate


def keys(folder: Path, *names: str) -> list[Path]:
    """New private keys; the public part is beside each."""
    for name in names:
        generate(folder / name, "")
    return [folder / name for name in names]


def public(key: Path) -> str:
    return f"{key}.pub"


def export(cache: cachefs.Cache, *names: str, seed: int = 1) -> None:
    generated = random_graph(seed, records=2)
    cache.export(generated.graph, generated.blobs, names, mode="max")


def signatures(root: Path) -> list[Path]:
    return sorted(path for path in (root / "signatures").rglob("*") if path.is_file())


def reasons(cache: cachefs.Cache, name: str = "main") -> str:
    """Why the name is a miss."""
    graph = cache.load(name)
    assert not graph.records
    assert not graph.layers
    return cache.misses[-1].reason


def verified_by_ssh_keygen(
    root: Path, manifest: bytes, key: Path, *, name: str, cache: str, work: Path
) -> dict[str, Any] | None:
    """The statement of the key about this name, as docs/format.md says; None if there is none."""
    digest = hashlib.sha256(manifest).hexdigest()
    path = root / "signatures" / f"sha256:{digest}" / key_id(key) / subject(cache, name)
    if not path.exists():
        return None
    statement = checked_by_ssh_keygen(path.read_bytes(), key, work)
    if statement is None:
        return None
    meant = (statement["manifest"], statement["name"], statement["cache"])
    return statement if meant == (f"sha256:{digest}", name, cache) else None


def key_id(key: Path) -> str:
    blob = base64.b64decode(Path(public(key)).read_text().split()[1])
    return hashlib.sha256(blob).hexdigest()


def subject(cache: str, name: str) -> str:
    return hashlib.sha256(f"{cache}\n{name}".encode()).hexdigest()


def checked_by_ssh_keygen(data: bytes, key: Path, work: Path) -> dict[str, Any] | None:
    """The statement, if the key signed it."""
    line, _, armored = data.partition(b"\n")
    (work / "signature").write_bytes(armored)
    (work / "allowed").write_text(f"ci {Path(public(key)).read_text()}")
    done = subprocess.run(
        [
            *("ssh-keygen", "-Y", "verify", "-n", "cachefs", "-I", "ci"),
            *("-f", work / "allowed", "-s", work / "signature"),
        ],
        input=line + b"\n",
        capture_output=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    statement: dict[str, Any] = json.loads(line)
    return statement if done.returncode == 0 else None
