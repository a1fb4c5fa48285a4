"""Where names, manifests and blobs are in a store, as keys."""
