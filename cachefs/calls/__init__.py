"""Cached functions: calls whose results are kept in a cache, and the serializers of results."""
