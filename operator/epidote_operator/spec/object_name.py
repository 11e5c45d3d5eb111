"""This file is about the names of our resources: other objects' names are made from them."""

import re

from epidote_operator.spec.invalid import Problem, shown

MAX_NAME = 40  # a Service's name has 63 characters; ours add a revision and a part
NAME_PATTERN = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
NAME_WANTED = (
    f"must have at most {MAX_NAME} lower-case letters, digits and `-`, the first of them a letter"
)


def name_problems(name: str) -> list[Problem]:
    """What is wrong with `metadata.name`.

    >>> [str(problem) for problem in name_problems("4you")][0][:43]
    'metadata.name: must have at most 40 lower-c'
    """
    if len(name) <= MAX_NAME and re.fullmatch(NAME_PATTERN, name):
        return []
    return [Problem(path="metadata.name", wanted=NAME_WANTED, found=shown(name))]
