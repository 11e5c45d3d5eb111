"""This file is about consoles whose reader may go away, as in `| head -1`."""

import errno
import os
from typing import NoReturn

from rich.console import Console


class FrankConsole(Console):
    """Rich's own ends the process with 1 when its pipe breaks, which says "missed" here; this one
    raises BrokenPipeError."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
