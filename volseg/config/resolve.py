"""Resolve the configuration: lay plan, file and `--set` over each other, and check the result once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, model_validator

from volseg.config.augmentation import AugmentationConfig
from volseg.config.data import DataConfig
from volseg.config.domain import DomainConfig
from volseg.config.inference import InferenceConfig, LabelRule
from volseg.config.keys import explained
from volseg.config.learning import LossConfig, PatchConfig, TrainingConfig
from volseg.config.networks import EncodedConfig, NetworkConfig
from volseg.config.preprocessing import PreprocessingConfig
from volseg.config.section import AXES, ContradictionError, Section, axis_number
from volseg.config.yaml_words import DoubledKeyError, load_yaml
from volseg.errors import ConfigError

_YAML_HINT = "write keys as `volseg plan` does, for example `training: {epochs: 100}`"
_PER_CHANNEL = "give one for each channel"
_DOUBLED_HINT = "keep one of the two"


class Config(Section):
    """A complete configuration.

    Attributes:
        data: Reading of files, and the channels, labels and regions: the inputs and outputs of the network.
        preprocessing: Orientation, resampling, cropping and normalisation of every volume.
        patches: Patches: the boxes of voxels that the network is trained on.
        network: Architecture of the network.
        augmentation: Random augmentation of training patches.
        loss: The loss that training minimises.
        training: Schedule, optimiser and validation.
        inference: Segmentation of a volume with a sliding window.
        postprocess: Post-processing, a list of rules per label; null lets training choose what raises the validation
            Dice.
        domain: Properties of the training cases, found by the plan, against which images are checked at prediction.
    """

    data: DataConfig
    preprocessing: PreprocessingConfig
    patches: PatchConfig
    network: NetworkConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()
    postprocess: tuple[LabelRule, ...] | None = None
    domain: DomainConfig = DomainConfig()

    @property
    def rules(self) -> tuple[LabelRule, ...]:
        """Post-processing rules; none until training has chosen them."""
        return self.postprocess or ()

    @property
    def window(self) -> tuple[int, int, int]:
        """Voxels of the sliding window: that of `inference.window`, else the patch size."""
        return self.inference.window or self.patches.size

    def inferring(self, **changes: Any) -> Config:
        """Return the configuration with other values of keys of `inference`."""
        return self.model_copy(update={"inference": self.inference.model_copy(update=changes)})

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        channels, normalizations = len(self.data.channels), len(self.preprocessing.normalization)
        if channels != normalizations:
            raise ContradictionError(
                f"preprocessing.normalization has {normalizations} entries for {channels} channels", hint=_PER_CHANNEL
            )
        if len(self.domain.intensities) not in (0, channels):
            raise ContradictionError(
                f"domain.intensities has {len(self.domain.intensities)} entries for {channels} channels",
                hint=_PER_CHANNEL,
            )
        self._check_planes()
        pretrained = isinstance(self.network, EncodedConfig) and self.network.encoder.weights is not None
        if self.training.freeze_encoder and self.training.start_from is None and not pretrained:
            raise ContradictionError(
                "freeze_encoder keeps pretrained weights, and none are given",
                hint="give a run or a model: training.start_from=RUN; or weights: network.encoder.weights=FILE",
            )
        if self.data.previous_labels and self.preprocessing.normalize == "after_resampling":
            raise ContradictionError(
                "the second network of a cascade requires intensities that are normalised before resampling",
                hint="set preprocessing.normalize to before_resampling",
            )
        for axis in (*self.augmentation.flip_axes, *self.inference.mirror_axes):
            axis_number(axis, self.preprocessing.axes)
        if self.augmentation.swap_labels and (unsided := set(self.augmentation.flip_axes) - set(AXES)):
            raise ContradictionError(
                f"augmentation.flip_axes names {', '.join(sorted(unsided))}, which may be left-right, and swap_labels "
                "names labels of two sides",
                hint="name axes of the body in flip_axes, or none",
            )
        names = {label.name for label in self.data.output_labels}
        for rule in self.rules:
            if rule.label != "*" and rule.label not in names:
                raise ContradictionError(
                    f"postprocess names the unknown label {rule.label!r}; there are {', '.join(sorted(names))}",
                    hint="correct the name, or write '*' for each label",
                )
        if unknown := {name for pair in self.augmentation.swap_labels for name in pair} - set(self.data.labels):
            raise ContradictionError(
                f"augmentation.swap_labels names {', '.join(sorted(unknown))}, not in data.labels",
                hint=f"correct the name; there are {', '.join(sorted(self.data.labels))}",
            )
        return self

    def _check_planes(self) -> None:
        neighbors, size = self.network.neighbors, list(self.patches.size)
        if neighbors and not self.patches.planes:
            raise ContradictionError(
                f"network.neighbors is {neighbors}, but the network does not learn slice by slice",
                hint="set patches.planes=true",
            )
        if neighbors and size[0] <= 2 * neighbors:
            raise ContradictionError(
                f"a patch of {size[0]} slices is too thin for {neighbors} neighbours on either side",
                hint=f"set the first number of patches.size to {2 * neighbors + 1} or more",
            )
        if self.patches.planes and not neighbors and size[0] != 1:
            raise ContradictionError(
                f"slices must be one voxel thick along the first axis, given {size}", hint="set the first number to 1"
            )


def read_overrides(path: Path) -> dict[str, Any]:
    """Read a YAML file of some or all configuration keys.

    Raises:
        ConfigError: If it is missing, is not YAML, is not a mapping of keys, or has a key twice.
    """
    try:
        content = load_yaml(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"cannot read the config {path}: {error.strerror}", hint="give the path of a YAML file"
        ) from error
    except DoubledKeyError as error:
        raise ConfigError(f"{path}: {error}", hint=_DOUBLED_HINT) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}", hint=_YAML_HINT) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}, not a mapping of keys to values", hint=_YAML_HINT)
    return content


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn `a.b=value` words into nested keys; values are YAML.

    Raises:
        ConfigError: If a word is not of that form, or has a key twice in its value.
    """
    tree: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(
                f"--set {assignment!r} is not of the form key=value", hint="for example --set training.epochs=100"
            )
        try:
            value = load_yaml(text)
        except DoubledKeyError as error:
            raise ConfigError(f"--set {assignment!r}: {error}", hint=_DOUBLED_HINT) from error
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--set {assignment!r}: the value is not YAML: {' '.join(str(error).split())}",
                hint="put quotes around text that has special characters",
            ) from error
        tree = merge(tree, nest({key: value}))
    return tree


def one_of(what: str, name: str, known: Sequence[str]) -> Any:
    """Return a name after checking that it is one of the known ones.

    Raises:
        ConfigError: If it is unknown.
    """
    if name not in known:
        raise ConfigError(f"there is no {what} {name!r}", hint=f"choose one of {', '.join(known)}")
    return name


def nest(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested ones: {"training.epochs": 50} into {"training": {"epochs": 50}}.

    Keys that are already nested stay nested; later ones override earlier ones.

    Raises:
        ConfigError: If a part of a key is empty.
    """
    tree: dict[str, Any] = {}
    for key, given in changes.items():
        if not all(key.split(".")):
            raise ConfigError(f"{key!r} is not a key of the configuration", hint="write keys such as training.epochs")
        value = given
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = merge(tree, value)
    return tree


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one tree of keys over another.

    A mapping with another `name` or `method` (another network, another normalisation) replaces the one below as a
    whole, since the two have different keys.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if not (isinstance(below, Mapping) and isinstance(value, Mapping)) or key == "labels":
            merged[key] = value
        elif any(kind in value and value[kind] != below.get(kind) for kind in ("name", "method")):
            merged[key] = dict(value)
        else:
            merged[key] = merge(below, value)
    return merged


def validate(tree: Mapping[str, Any], origin: str) -> Config:
    """Check a complete tree of keys.

    Args:
        tree: All sections.
        origin: Where it came from, for the message: a path, "--set", "the plan".

    Raises:
        ConfigError: If a key is wrong; the message states the origin, the first wrong key, and the allowed values.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise explained(error, origin, Config) from error


def read_config(path: Path) -> Config:
    """Read a complete config, such as a run's `config.yaml`.

    Raises:
        ConfigError: If it cannot be read or is invalid.
    """
    return validate(read_overrides(path), str(path))


def dump(config: Config) -> str:
    """Write the configuration as YAML text; reading it gives an equal configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=120, default_flow_style=None)


def differences(earlier: Config, later: Config) -> list[str]:
    """Return a phrase for each key in which two configurations differ: "training.minutes was 3, is 5"."""
    before, after = (config.model_dump(mode="json") for config in (earlier, later))
    return list(_differing(before, after, ""))


def _differing(before: object, after: object, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _differing(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif before != after:
        yield f"{path} was {json.dumps(before)}, is {json.dumps(after)}"
