"""Builds: steps whose results are kept in a cache, found again by their keys, and pulled lazily."""
