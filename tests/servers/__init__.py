"""Real servers for tests and benchmarks; each listens on loopback only, on ports that were free."""
