"""Layers: a directory becomes a deterministic archive, and archives become a directory, safely."""
