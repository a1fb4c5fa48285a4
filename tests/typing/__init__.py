"""Programs of users, for type checkers only: ``mypy`` and ``nox -s types`` check them.

``assert_type`` says what a type checker must see. What must be an error has a ``type: ignore``
with its code; if it is no longer an error, the ignore is unused, and that is an error too.
"""
