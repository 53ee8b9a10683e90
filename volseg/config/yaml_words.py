"""YAML as people mean it: `NO` is the name of a label, not false."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

_STRING, _BOOL, _MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "bool", "merge"))


class _Loader(yaml.SafeLoader):
    """Keys are words as they stand there; true and false are the only words for a choice (YAML 1.2 section 10.3.2)."""

    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]  # the stubs take it for one of instances
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                key.tag = _STRING
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(_BOOL, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))


def load_yaml(text: str) -> Any:
    """The content of a YAML text, of plain types only.

    Raises:
        yaml.YAMLError: If it is none.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
