"""Benchmarks of cachefs on a local SeaweedFS: ``python -m benchmarks --help``."""
