"""The one write path and the one read path: blobs and manifests between stores and callers."""
