"""Where a cache is: what a user types, read, checked and free of secrets when it is shown."""
