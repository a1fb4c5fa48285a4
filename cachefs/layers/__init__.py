"""Layers: directories packed into blobs, and extracted from them."""
