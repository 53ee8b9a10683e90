"""Write configuration.md: every key of the configuration, from the models that check it.

python docs/write_configuration.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from volseg.config import Config, NetworkConfig, Normalization, Region, SeriesRule, StructureConfig
from volseg.config.descriptions import descriptions
from volseg.config.dicom import CodeConfig
from volseg.config.domain import IntensityRange
from volseg.config.encoders import EncoderConfig
from volseg.config.inference import LabelRule
from volseg.config.section import Section

PAGE = Path(__file__).with_name("configuration.md")
_INTRODUCTION = """\
# Configuration

Keys have a default or are planned from the data, so a configuration file holds only what you set:

```yaml
patches:
  size: [96, 96, 64]
training:
  epochs: 200
```

Pass it with `--config FILE`, or set single keys with `--set training.epochs=200`; in Python, pass `config=` and
`changes={"training.epochs": 200}`. Later ones win: defaults, plan, file, `--set`, and options such as
`--minutes`. An unknown key is an error, and the message names the key that was probably meant. `RUN/config.yaml` holds
the complete configuration of a run.

`volseg plan DATA --output plan.yaml` writes a complete file, with the descriptions below as comments and the reason for
each planned value. The plan may replace any default; where the table says *planned*, there is no default without it.
`null` means not set.
"""
#: Sections within keys, where they are explained by themselves.
_INNER: Mapping[str, type[Section]] = {
    "An entry of `data.regions`": Region,
    "An entry of `data.series`": SeriesRule,
    "An entry of `data.structures`": StructureConfig,
    "A code in `data.structures`": CodeConfig,
    "`network.encoder`": EncoderConfig,
    "An entry of `postprocess`": LabelRule,
    "An entry of `domain.intensities`": IntensityRange,
}
_UNIONS = {"network": get_args(get_args(NetworkConfig)[0]), "normalization": get_args(get_args(Normalization)[0])}
_TYPES = {"string": "text", "boolean": "true or false", "null": "null", "integer": "integer", "number": "number"}


def page() -> str:
    """Return the whole page as Markdown."""
    return "\n".join([_INTRODUCTION, *_sections()]) + "\n"


def _sections() -> Iterator[str]:
    described = descriptions(Config)
    for name, field in Config.model_fields.items():
        yield f"## {name}\n\n{described[name]}\n"
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield _table(kind)
        elif name == "network":
            yield from _kinds("name", _UNIONS[name])
        if name == "preprocessing":
            yield "### Methods of `preprocessing.normalization`\n"
            yield from _kinds("method", _UNIONS["normalization"], level=4)
        for title, inner in _INNER.items():
            if name in title.partition("`")[2]:
                yield f"### {title}\n\n{_table(inner)}"


def _kinds(tag: str, kinds: tuple[type[Section], ...], level: int = 3) -> Iterator[str]:
    for kind in kinds:
        first, _, _ = (kind.__doc__ or "").strip().partition("\n")
        yield f"{'#' * level} `{tag}: {kind.model_fields[tag].default}`\n\n{first}\n"
        if len(kind.model_fields) > 1:
            yield _table(kind, leave_out=tag)


def _table(section: type[Section], leave_out: str = "") -> str:
    schema = section.model_json_schema()
    rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for key, meaning in descriptions(section).items():
        if key != leave_out:
            shape = schema["properties"][key]
            rows.append(f"| `{key}` | {_cell(_kind(shape))} | {_default(section, key)} | {_cell(meaning)} |")
    return "\n".join(rows) + "\n"


def _default(section: type[Section], key: str) -> str:
    field = section.model_fields[key]
    if field.is_required():
        return "*planned*" if section in {f.annotation for f in Config.model_fields.values()} else "required"
    value = field.get_default(call_default_factory=True)
    plain = value.model_dump(mode="json") if isinstance(value, Section) else value
    return f"`{_inline(plain)}`"


def _inline(value: Any) -> str:
    """Write a value as YAML on one line."""
    return value if isinstance(value, str) else json.dumps(value, default=dict)


def _kind(shape: Mapping[str, Any]) -> str:
    """Say in words which values a JSON schema allows."""
    match shape:
        case {"anyOf": kinds}:
            words = " or ".join(dict.fromkeys(map(_kind, kinds)))
        case {"enum": choices}:
            words = ", ".join(f"`{choice}`" for choice in choices)
        case {"const": choice}:
            words = f"`{choice}`"
        case {"type": "array", "prefixItems": items}:
            words = f"{len(items)} values: {_kind(items[0])}"
        case {"type": "array", "items": {"$ref": _} | {"oneOf": _}}:
            words = "list, see below"
        case {"type": "array", "items": item}:
            words = f"list of {_kind(item)}"
        case {"type": "object", "additionalProperties": {} as value}:
            words = f"mapping of names: {_kind(value)}"
        case {"type": kind}:
            words = _TYPES[kind] + _limits(shape)
        case _:
            words = "see below"
    return words


def _limits(shape: Mapping[str, Any]) -> str:
    prepositions = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    limits = "".join(f" {word} {shape[limit]:,}" for limit, word in prepositions.items() if limit in shape)
    steps = f", multiple of {shape['multipleOf']:,}" if "multipleOf" in shape else ""
    return limits + steps


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
