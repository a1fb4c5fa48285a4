"""Builds: steps whose results are kept in a cache, found by their keys, and pulled lazily."""
