"""This file is about URLs where others read them (status, Events, reports): without passwords."""

import re

_USER = re.compile(r"(?<=://)[^/\s\"'<>]*@")


def without_credentials(text: str) -> str:
    """`text`, with `user:password@` left out of each URL in it.

    >>> without_credentials("error: https://bob:secret@host:8000/v1 does not answer")
    'error: https://host:8000/v1 does not answer'
    """
    return _USER.sub("", text)
