"""This file is about what is wrong with a run file, said so that it can be mended at once."""


class InvalidConfig(ValueError):
    """A run file that can't be used: one line a problem, with file, line and field path."""
