"""The race between writers and pruners: every order of their filesystem calls."""
