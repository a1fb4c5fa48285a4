"""The operations on a cache: a file for each command, or for what several commands share."""
