"""Results as someone else may have put them into a shared cache."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from cachefs.digest import Digest
from tests.trees import File, Link, Tree

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"


def archive(tree: Tree) -> bytes:
    """The tree as an archive, as another tool writes it."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, "", tree)
    return target.getvalue()


def _add(tar: tarfile.TarFile, above: str, tree: Tree) -> None:
    for name, node in tree.items():
        info = tarfile.TarInfo(above + name)
        if isinstance(node, dict):
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
            _add(tar, f"{above}{name}/", node)
        elif isinstance(node, Link):
            info.type, info.linkname = tarfile.SYMTYPE, node.target
            tar.addfile(info)
        else:
            assert isinstance(node, File)
            info.size = len(node.data)
            tar.addfile(info, io.BytesIO(node.data))


def poison(
    cache: Path,
    files: bytes | None = None,
    log: bytes | None = None,
    *,
    media_type: str = MEDIA_TYPE,
    diff_id: str = "",
    without_log: bool = False,
) -> None:
    """Replace the archives of all results in a local cache: of their files, of their logs."""
    for path in (cache / "manifests").glob("[!.]*"):
        manifest = json.loads(path.read_bytes())
        for layer in manifest["layers"]:
            raw = files if layer.get("parent", 0) == -1 else log
            if raw is None:
                continue
            digest = str(Digest.of(raw))
            (cache / "blobs" / digest).write_bytes(raw)
            layer["blob"] = digest
            layer["annotations"] |= {
                "mediaType": media_type,
                "size": len(raw),
                "diffID": diff_id or digest,
            }
        if without_log:
            (bottom,) = (
                index
                for index, layer in enumerate(manifest["layers"])
                if layer.get("parent", 0) == -1
            )
            manifest["layers"] = [manifest["layers"][bottom]]
            for record in manifest["records"]:
                for result in record.get("layers", ()):
                    result["layer"] = 0
        path.write_bytes(json.dumps(manifest, separators=(",", ":")).encode())
