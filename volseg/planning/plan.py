"""A planned configuration, with a reason for every choice."""

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

_HEADER = "# Written by `volseg plan`. Every key can be edited; train with it by `volseg train --config`."
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
        config: The configuration, complete and valid.
        reasons: Key path -> the reason for its value, for the comments of the written file.
        outlook: The expected duration of a run, or what the time allows; empty if no step was timed.
        dataset: The data set that it was planned for, if known.
        inputs: The files it was planned from, which are never replaced.
    """

    config: Config
    reasons: Mapping[str, str]
    outlook: str = ""
    dataset: Dataset | None = None
    inputs: Inputs = NO_INPUTS

    def __repr__(self) -> str:
        config = self.config
        labels = ", ".join(label.name for label in config.data.output_labels)
        size = " x ".join(map(str, config.patches.size))
        outlook = f"; {self.outlook}" if self.outlook else ""
        return f"<Plan {config.network.name}: patches of {size} voxels; labels: {labels}{outlook}>"

    def changed(self, changes: Mapping[str, Any]) -> Plan:
        """Return the plan with some keys changed.

        Args:
            changes: Dotted keys, {"training.epochs": 50}, or nested ones.

        Returns:
            A new plan; this one is not modified.

        Raises:
            ConfigError: If a key is unknown, or its value is not allowed.
        """
        return replace(self.with_given(PartialConfig.of(nest(changes))), outlook="")

    def with_given(self, given: PartialConfig) -> Plan:
        """Return the plan with the given keys laid over it, and reasons that state that they were given.

        Raises:
            ConfigError: If the result is not valid.
        """
        reasons = {key: "given" if given.states(key) else reason for key, reason in self.reasons.items()}
        return replace(self, config=given.laid_over(self.config), reasons=reasons)

    def to_yaml(self) -> str:
        """Return the plan as YAML: above each key its meaning, and the reason for its value if it was planned."""
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
        """Wrap the description of a key and the reason for its value into comment lines."""
        reason = [f"Planned: {readable(self.reasons[path])}"] if path in self.reasons else []
        said = [*([described[key]] if key in described else []), *reason]
        return [line for text in said for line in _COMMENT.wrap(text)]

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the plan as YAML for `volseg train --config`.

        Args:
            path: The file.
            overwrite: Whether to replace a file that volseg did not write, or that was changed since.

        Raises:
            OutputExistsError: If there is such a file and `overwrite` is false.
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
