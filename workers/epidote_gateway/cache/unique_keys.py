"""This file is about reading YAML whose mappings say everything once: of two, one would be lost."""

from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode


class UniqueKeyLoader(yaml.SafeLoader):
    """Like `yaml.SafeLoader`, and a key that comes twice is an error with its line."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                raise ConstructorError(
                    "while reading a mapping", node.start_mark,
                    f"the field {str(key.value)[:80]!r} is given twice", key.start_mark,
                )  # fmt: skip
            seen.add(name)
        return super().construct_mapping(node, deep)
