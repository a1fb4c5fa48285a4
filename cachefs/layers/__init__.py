"""From a directory to a layer, and back."""
