"""What a prune says about names whose blobs are missing."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

import cachefs
from cachefs.cli.main import program
from cachefs.digest import Digest


def test_names_with_missing_blobs_are_told(tmp_path: Path) -> None:
    graph = cachefs.RecordGraph()
    digest = Digest.of(b"layer")
    layer = graph.add_layer(digest, size=5, diff_id=digest)
    graph.add_result(graph.add(digest), layer, "2026-01-01T00:00:00Z")
    cachefs.open(tmp_path / "cache").export(graph, {digest: b"layer"}, "main")
    (blob,) = tmp_path.glob("cache/blobs/*")
    blob.unlink()

    done = CliRunner().invoke(
        program, ["prune", str(tmp_path / "cache"), "--missing-blobs", "--dry-run"]
    )

    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "main lacks 1 blob\n" in done.output
