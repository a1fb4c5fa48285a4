"""For users' tests: random caches, and a filesystem suite in ``cachefs.testing.contract``.

The same seed gives the same bytes on every machine. The caches have the shapes of real builds: base
images that builds share, stages that grow step by step, stages that copy from others through
selectors, steps that several inputs satisfy, and the same Dockerfile built for two platforms.

    generated = random_graph(seed=7, records=40)
    cache.export(generated.graph, generated.blobs, mode="max", names=["main"])

:func:`graphs` provides the same as a Hypothesis strategy.
"""

from cachefs.testing.caches import (
    PLATFORMS,
    Generated,
    graphs,
    random_graph,
    write_random_cache,
)

__all__ = ["PLATFORMS", "Generated", "graphs", "random_graph", "write_random_cache"]
