"""The user's cache directory: what is kept on this machine only, and the cache that is bounded."""
