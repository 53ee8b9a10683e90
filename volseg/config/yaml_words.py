"""YAML with words read as text: `NO` is the name of a label, not false."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

_STRING, _BOOL, _MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "bool", "merge"))


class DoubledKeyError(yaml.YAMLError):
    """A key that occurs twice in a mapping; YAML forbids it (YAML 1.2, 3.2.1.1), while PyYAML takes the last."""


class _Loader(yaml.SafeLoader):
    """A loader that keeps keys as text; only true and false are booleans (YAML 1.2 section 10.3.2)."""

    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]  # the stubs take it for one of instances
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[str, yaml.ScalarNode] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE and first.setdefault(key.value, key) is not key:
                lines = (first[key.value].start_mark.line + 1, key.start_mark.line + 1)
                raise DoubledKeyError("the key {!r} appears in line {}, and again in line {}".format(key.value, *lines))
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                key.tag = _STRING
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(_BOOL, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))


def load_yaml(text: str | bytes) -> Any:
    """Read YAML text with plain types only; bytes are UTF-8, or UTF-16 with a byte order mark.

    Raises:
        DoubledKeyError: If a key occurs twice in one mapping.
        yaml.YAMLError: If it is not YAML.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
