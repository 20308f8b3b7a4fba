"""YAML as people write it: one meaning per key."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice; plain YAML lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.YAMLError(f"`{min(twice)}` is written twice")
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """The plain value of a YAML text.

    Raises:
        ValueError: It is not YAML, or a key is written twice; the message is the first line of
            what is wrong.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506  a safe loader
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
