"""For tests: random caches, and in ``cachefs.testing.contract`` a test suite for filesystems."""

from cachefs.testing.caches import (
    PLATFORMS,
    Generated,
    graphs,
    random_graph,
    write_random_cache,
)

__all__ = ["PLATFORMS", "Generated", "graphs", "random_graph", "write_random_cache"]
