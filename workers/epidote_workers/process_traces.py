"""This file is about what processes show to others on their machine, for tests; Linux's /proc.

Their command lines, the addresses that they listen on, the names that they leave in shared memory.
"""

import contextlib
import os
import re
from collections.abc import Set
from pathlib import Path

from epidote_workers.process_tree import Process

LISTENS = "0A"  # the state of a listening socket in /proc/net


def command_line(process: Process) -> str:
    """Its arguments, each ended by a NUL; "" if it is gone."""
    try:
        return Path(f"/proc/{process[0]}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def listening(pid: int) -> set[str]:
    """The local addresses (hexadecimal, as /proc/net has them) that a process listens on."""
    inodes: set[str] = set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(descriptor)
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS and fields[9] in inodes:
                found.add(fields[1].split(":")[0])
    return found


def shared_memory() -> set[str]:
    """Names of all programs' shared memory."""
    return {path.name for path in Path("/dev/shm").glob("*")}


def is_named_after(name: str, pids: Set[int]) -> bool:
    """Whether a number in the name is one of `pids`: most libraries name memory after its owner.

    >>> is_named_after("torch_4711_2", {4711}), is_named_after("sem.mp-x", {4711})
    (True, False)
    """
    return any(number.isdigit() and int(number) in pids for number in re.split(r"\D+", name))
