"""The command line: one small module a command, which parses, calls the library and prints."""
