"""Cache keys: what identifies files, directories, values and functions."""
