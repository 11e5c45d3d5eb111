"""This file is about telling, on the terminal of `epidote serve`, what became of a changed policy.

The gateways follow the file by themselves, in processes whose logs go to files. Who saves the file
looks at this terminal.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from epidote_gateway.cache.policy import InvalidPolicy
from epidote_gateway.cache.policy_file import REFUSED, WATCH_S, read_policy


class PolicyNotice:
    """Says once a change whether the policy in `path` can be honoured, and if not which field."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        self._seen = self._content()

    def look(self) -> None:
        """Say what there is to say about the file as it is now."""
        content = self._content()
        if content == self._seen:
            return
        self._seen = content
        from epidote_gateway.cache.meaning.files_check import check_embedder  # of the extra `cache`

        try:
            policy = read_policy(self._path)
            check_embedder(policy, self._path)
        except InvalidPolicy as error:
            self._say(f"{REFUSED}: {error}")
            return
        self._say(f"cache policy changed: {self._path}")
        for warning in policy.unfindable():
            self._say(f"warning: {warning}")

    def _content(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except OSError:
            return None


def tell_about_policy(path: str, say: Callable[[str], None]) -> None:
    """Look every second, in the background, until the process ends. "": there is no policy."""
    if not path:
        return
    notice = PolicyNotice(Path(path), say)
    pause = threading.Event()

    def watch() -> None:
        while not pause.wait(WATCH_S):
            notice.look()

    threading.Thread(target=watch, name="policy notice", daemon=True).start()
