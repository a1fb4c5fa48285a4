"""Annotations of descriptors that a cache config has no field for, such as those of estargz."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import cachefs
from cachefs.wire import oci

ESTARGZ = {
    "containerd.io/snapshot/stargz/toc.digest": f"sha256:{'7' * 64}",
    "io.containers.estargz.uncompressed-size": "20480",
}


def descriptors(folder: Path, tag: str) -> list[dict[str, Any]]:
    index = json.loads((folder / "index.json").read_bytes())
    (top,) = (item for item in index["manifests"] if item["annotations"][oci.REF_NAME] == tag)
    raw = (folder / "blobs/sha256" / top["digest"].removeprefix("sha256:")).read_bytes()
    layers: list[dict[str, Any]] = json.loads(raw)["layers"]
    return layers


@pytest.fixture
def annotated(recorded: Path, tmp_path: Path) -> Path:
    """A copy of a recorded cache, whose first layer has the annotations of an estargz layer."""
    folder = tmp_path / "annotated"
    cachefs.copy(f"type=local,src={recorded / 'local-max'},tag=latest", f"type=local,dest={folder}")
    layout = cachefs.open(f"type=local,src={folder}").layout
    index = json.loads((folder / "index.json").read_bytes())
    top = index["manifests"][0]
    path = folder / "blobs/sha256" / top["digest"].removeprefix("sha256:")
    manifest = json.loads(path.read_bytes())
    manifest["layers"][0]["annotations"] |= ESTARGZ
    raw = json.dumps(manifest, separators=(",", ":")).encode()
    top["digest"], top["size"] = str(cachefs.Digest.of(raw)), len(raw)
    (folder / layout.blob_key(cachefs.Digest(top["digest"]))).write_bytes(raw)
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def test_they_survive_a_copy_and_a_merge_between_oci_layouts(
    annotated: Path, tmp_path: Path
) -> None:
    source = f"type=local,src={annotated}"
    copied, merged = tmp_path / "copied", tmp_path / "merged"
    cachefs.copy(source, f"type=local,dest={copied}")
    cachefs.merge([source], f"type=local,dest={merged}", ["latest"])
    expected = descriptors(annotated, "latest")
    assert expected[0]["annotations"].items() > ESTARGZ.items()
    assert descriptors(copied, "latest") == expected
    assert list(descriptors(copied, "latest")[0]["annotations"]) == sorted(
        expected[0]["annotations"]
    )
    assert descriptors(merged, "latest") == expected


def test_they_are_told_as_lost_where_there_is_no_place_for_them(
    annotated: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "cachefs"):
        report = cachefs.copy(f"type=local,src={annotated}", tmp_path / "keyed")
    assert report.annotations_lost == ["latest"]
    (message,) = caplog.messages
    assert "annotations of 1 layer, which are lost" in message
    assert all(key in message for key in ESTARGZ)


def test_where_there_is_a_place_none_is_reported_as_lost(annotated: Path, tmp_path: Path) -> None:
    report = cachefs.copy(f"type=local,src={annotated}", f"type=local,dest={tmp_path}/oci")
    assert report.names
    assert report.annotations_lost == []
