"""Where names, manifests and blobs lie in a store, as keys."""
