"""This file is about where to keep what is made once a machine: converted models, compiled code."""

import os
from pathlib import Path


def cache_directory() -> Path | None:
    """`$XDG_CACHE_HOME/epidote`, or `~/.cache/epidote`; it need not exist.

    None where the user has no home, as some containers' users.
    """
    cached = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    # `expanduser` leaves the ~ of a user without a home, and it would be a folder's name
    return None if cached.startswith("~") else Path(cached, "epidote")
