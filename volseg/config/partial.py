"""Partial configurations: some keys are given, and a plan decides the others."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, ValidationError

from volseg.config.augmentation import AugmentationConfig
from volseg.config.data import ChannelNames, Color, LabelValues, Others, PreviousLabels, Region
from volseg.config.dicom import DicomRules, StructureConfig
from volseg.config.domain import DomainConfig
from volseg.config.inference import InferenceConfig, LabelRule
from volseg.config.keys import check_network, explained
from volseg.config.learning import LossConfig, TrainingConfig
from volseg.config.modality import Modalities
from volseg.config.networks import NetworkName
from volseg.config.normalization import Normalizations
from volseg.config.preprocessing import PreprocessingRules
from volseg.config.resolve import Config, merge, nest, read_overrides, validate
from volseg.config.section import Fraction, IntTriple, Section, SpacingMm
from volseg.errors import ConfigError
from volseg.image.geometry import Unit

#: Keys that a plan decides if they are not given.
_PLANNED = ("data.channels", "data.labels", "preprocessing.spacing_mm", "preprocessing.normalization", "patches.size")


class PartialData(DicomRules):
    """`DataConfig`, every key optional."""

    channels: ChannelNames | None = None
    modality: Modalities = ()
    unit: Unit = "mm"
    labels: LabelValues | None = None
    regions: tuple[Region, ...] = ()
    painted: tuple[str, ...] = ()
    others: Others = "refuse"
    segments: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    structures: Mapping[str, StructureConfig] = Field(default_factory=dict)
    colors: Mapping[str, Color] = Field(default_factory=dict)
    previous_labels: PreviousLabels = ()


class PartialPreprocessing(PreprocessingRules):
    """`PreprocessingConfig`, every key optional."""

    spacing_mm: SpacingMm | None = None
    normalization: Normalizations | None = None


class PartialPatches(Section):
    """`PatchConfig`, every key optional."""

    size: IntTriple | None = None
    foreground: Fraction = 0.67
    planes: bool = False


class PartialNetwork(Section):
    """Some keys of a network, whose name may come from the plan or the model."""

    model_config = ConfigDict(extra="allow")

    name: NetworkName | None = None
    neighbors: Annotated[int, Field(ge=0, le=8)] = 0

    def check_keys(self, name: NetworkName | None, origin: str = "the configuration") -> None:
        """Refuse keys that a network does not have, and values that they cannot have.

        Args:
            name: Name of the network; if None, keys of any network are accepted.
            origin: Where the keys came from, for the message.

        Raises:
            ConfigError: If a key or value is wrong; the message states the first.
        """
        check_network(self.model_extra or {}, name, origin, Config)


class PartialConfig(Section):
    """`Config` with every key optional, as given by a file, `--set` or the caller.

    Keys that were not given have their defaults; `states` distinguishes them, and `tree` holds only the given keys.
    """

    data: PartialData = PartialData()
    preprocessing: PartialPreprocessing = PartialPreprocessing()
    patches: PartialPatches = PartialPatches()
    network: PartialNetwork = PartialNetwork()
    augmentation: AugmentationConfig = AugmentationConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()
    postprocess: tuple[LabelRule, ...] | None = None
    domain: DomainConfig = DomainConfig()

    @classmethod
    def of(cls, tree: Mapping[str, Any], origin: str = "the configuration") -> Self:
        """Check some keys.

        Args:
            tree: Nested keys.
            origin: Where the keys came from, for the message.

        Raises:
            ConfigError: If a key is wrong; the message states the origin, the first wrong key, and the allowed values.
        """
        try:
            partial = cls.model_validate(tree)
        except ValidationError as error:
            raise explained(error, origin, Config) from error
        partial.network.check_keys(partial.network.name, origin)
        return partial

    @classmethod
    def stated(
        cls,
        config: str | PathLike[str] | Mapping[str, Any] | None,
        changes: Mapping[str, Any] | None = None,
        allow_gaps: bool = False,
        *,
        network: str | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> Self:
        """Combine all keys that a caller states: a file, changes to it, then separate arguments.

        Args:
            config: A YAML file, or keys, dotted or nested.
            changes: Keys, dotted or nested.
            allow_gaps: Value of `data.allow_gaps`.
            network: Name of the network.
            training: Keys of `training`; None means not stated.

        Raises:
            ConfigError: If the file cannot be read, or a key is unknown or its value is not allowed.
        """
        file = Path(config) if isinstance(config, str | PathLike) else None
        stated = nest(config or {}) if file is None else read_overrides(file)  # type: ignore[arg-type]  # no path
        tree = merge(stated, nest(changes or {}))
        tree = merge(tree, {"data": {"allow_gaps": True}} if allow_gaps else {})
        tree = merge(tree, {"network": {"name": network}} if network else {})
        options = {key: value for key, value in (training or {}).items() if value is not None}
        tree = merge(tree, {"training": options} if options else {})
        return cls.of(tree, "the configuration" if file is None else _origin(stated, tree, str(file)))

    @property
    def tree(self) -> dict[str, Any]:
        """The given keys, nested, with plain values."""
        return self.model_dump(mode="json", exclude_unset=True)

    def states(self, path: str) -> bool:
        """Return whether a dotted key, or any key below it, was given."""
        section, _, key = path.partition(".")
        if section not in self.model_fields_set:
            return False
        return not key or key in getattr(self, section).model_fields_set

    @property
    def is_complete(self) -> bool:
        """Return whether all keys that a plan would decide are given."""
        return self.states("network") and all(self.states(path) for path in _PLANNED)

    def laid_over(self, config: Config) -> Config:
        """Lay the given keys over a configuration.

        Raises:
            ConfigError: If the result is not valid.
        """
        return validate(merge(config.model_dump(mode="json"), self.tree), "the configuration")

    def laid_over_partial(self, below: Mapping[str, Any]) -> PartialConfig:
        """Lay the given keys over others."""
        return PartialConfig.of(merge(below, self.tree))


def _origin(stated: Mapping[str, Any], tree: Mapping[str, Any], file: str) -> str:
    """Return the origin of the first error: the file, if it has this error by itself."""
    faults = []
    for keys in (stated, tree):
        try:
            PartialConfig.of(keys, "")
        except ConfigError as error:
            faults.append(str(error))
    return file if len(set(faults)) == 1 and len(faults) == 2 else "the configuration"
