"""Benchmarks of cachefs on a SeaweedFS of their own: ``python -m benchmarks --help``."""
