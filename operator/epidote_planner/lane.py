"""This file is about lanes: a lane is one role inside one modality group."""

from typing import NamedTuple

from epidote_core.roles import Role

DEFAULT_GROUP = "default"
SPLIT_ROLES = (Role.ENCODE, Role.PREFILL, Role.DECODE)


class Lane(NamedTuple):
    """Workers that are interchangeable for the planner."""

    group: str
    role: Role

    def __str__(self) -> str:
        """`decode`, or `text/decode` where there are several groups."""
        prefix = "" if self.group == DEFAULT_GROUP else f"{self.group}/"
        return f"{prefix}{self.role.value}"

    @property
    def key(self) -> str:
        """Name in the planner's memory.

        >>> Lane.parse("text/decode") == Lane("text", Role.DECODE)
        True
        """
        return f"{self.group}/{self.role.value}"

    @classmethod
    def parse(cls, key: str) -> "Lane":
        group, _, role = key.rpartition("/")
        return cls(group, Role(role))
