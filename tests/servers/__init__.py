"""Real servers for tests and benchmarks; each listens only on loopback, on free ports."""
