"""A planned configuration, with a reason beside every choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from textwrap import TextWrapper
from typing import Any

import yaml

from volseg.cases import Dataset
from volseg.config import Config, PartialConfig, nest
from volseg.config.descriptions import descriptions
from volseg.io.files import write_text
from volseg.io.written import NO_INPUTS, Inputs, claim
from volseg.text import readable

_HEADER = "# Written by `volseg plan`. Every key can be edited; `volseg train --config` takes the file."
_INDENT = "  "
#: Columns of a written plan, within its indentation.
_WIDTH = 100 - len(_INDENT)
_COMMENT = TextWrapper(
    _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
)


@dataclass(frozen=True)
class Plan:
    """A planned configuration.

    Attributes:
        config: Complete and valid.
        reasons: Key path -> why it has its value, for the comments of the written file.
        outlook: How long a run takes, or what there is time for; empty where no step was timed.
        dataset: What it was made for, where that is known.
        inputs: What it was made from, which it never replaces.
    """

    config: Config
    reasons: Mapping[str, str]
    outlook: str = ""
    dataset: Dataset | None = None
    inputs: Inputs = NO_INPUTS

    def changed(self, changes: Mapping[str, Any]) -> Plan:
        """The plan with some keys decided otherwise.

        Args:
            changes: Dotted keys, {"training.epochs": 50}, or nested ones.

        Returns:
            A new plan; this one stays as it is.

        Raises:
            ConfigError: If a key is unknown, or its value not allowed.
        """
        return self.with_given(PartialConfig.of(nest(changes)))

    def with_given(self, given: PartialConfig) -> Plan:
        """The plan with the given keys laid over it, which are the reason of their own values.

        Raises:
            ConfigError: If the result is not valid.
        """
        reasons = {key: "given" if given.states(key) else reason for key, reason in self.reasons.items()}
        return replace(self, config=given.laid_over(self.config), reasons=reasons)

    def to_yaml(self) -> str:
        """Return the plan as YAML: above each key what it means, and why it has its value where that was planned."""
        lines = [_HEADER]
        of_sections = descriptions(Config)
        for section, value in self.config.model_dump(mode="json").items():
            lines += ["", *self._comments(section, of_sections, section)]
            if not isinstance(value, dict):
                lines += _entry(section, value)
                continue
            lines.append(f"{section}:")
            of_keys = descriptions(type(getattr(self.config, section)))
            for key, entry in value.items():
                own = [*self._comments(f"{section}.{key}", of_keys, key), *_entry(key, entry)]
                lines += [f"{_INDENT}{line}" for line in own]
        return "\n".join(lines) + "\n"

    def _comments(self, path: str, described: Mapping[str, str], key: str) -> list[str]:
        """Wrap the description of a key and the reason of its value into lines of comment."""
        reason = [f"Planned: {readable(self.reasons[path])}"] if path in self.reasons else []
        said = [*([described[key]] if key in described else []), *reason]
        return [line for text in said for line in _COMMENT.wrap(text)]

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the plan as YAML, which `volseg train --config` takes.

        Args:
            path: The file.
            overwrite: Replace a file that volseg did not write, or that was changed since.

        Raises:
            OutputExistsError: If there is such a file.
            OutputError: If it cannot be written.
        """
        claim([Path(path)], self.inputs, overwrite=overwrite)
        write_text(Path(path), self.to_yaml())


def _entry(key: str, value: object) -> list[str]:
    """Write a key and its value as YAML, on one line if it fits."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).removesuffix("...\n").strip()
    if len(line := f"{key}: {text}") <= _WIDTH or not isinstance(value, dict | list):
        return [line]
    block: str = yaml.safe_dump({key: value}, default_flow_style=None, sort_keys=False, width=_WIDTH)
    return block.splitlines()
