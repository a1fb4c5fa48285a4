"""Locations of caches: what a user types, parsed, checked, and shown without secrets."""
