"""Signed names, without a store: SSH signatures, statements, keys, and whom to trust."""
