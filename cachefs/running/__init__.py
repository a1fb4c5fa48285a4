"""``cachefs run``: one command or a project's named steps, in the user's working directory."""
