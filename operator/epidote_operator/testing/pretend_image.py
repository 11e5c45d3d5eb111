"""This file is about an image for tests: the commands that our pods start, without Ray or models.

`epidote head` waits, `epidote worker` stands for a worker, `epidote gateway` runs a pretend fleet.
"""

import sys
from pathlib import Path

IMAGE = "epidote/pretend"
SCRIPT = """#!{python}
import os, sys
python, folder = {python!r}, {folder!r}
heads = [argument for argument in sys.argv if argument.startswith("--head=")]
if heads:  # each head has a fleet of its own
    folder = os.path.join(folder, heads[0].removeprefix("--head=").partition(":")[0])
commands = {{
    "head": ["sleep", "infinity"],
    "worker": [python, "-m", "epidote_workers.pretend_pod", folder],
    "gateway": [python, "-m", "epidote_workers.pretend_fleet", folder],
}}
command = commands.get(sys.argv[1] if len(sys.argv) > 1 else "")
if command is None:
    sys.exit(f"no such command in the pretend image: {{sys.argv}}")
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
