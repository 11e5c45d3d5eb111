"""This file is about an image for tests: the programs that our pods start, without Ray or a model.

`epidote head` waits, `epidote worker` stands for one, `epidote gateway` runs the pretend fleet.
"""

import sys
from pathlib import Path

SCRIPT = """#!{python}
import os, sys
python, folder = {python!r}, {folder!r}
arguments = sys.argv[1:]
if arguments[:1] == ["gateway"]:
    command = [python, "-m", "epidote_workers.pretend_fleet", folder]
elif arguments[:1] == ["head"]:
    command = ["sleep", "infinity"]
elif arguments[:1] == ["worker"]:
    command = [python, "-m", "epidote_workers.pretend_pod", folder]
else:
    sys.exit(f"no such program in the pretend image: {{sys.argv}}")
os.execvp(command[0], command)
"""


def write_pretend_image(programs: Path, folder: Path) -> Path:
    """Make `programs`; its workers meet in `folder`, which no volume of a pod may cover."""
    programs.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = programs / "epidote"
    path.write_text(SCRIPT.format(python=sys.executable, folder=str(folder)))
    path.chmod(0o755)
    return programs
