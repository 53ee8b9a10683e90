"""The configuration: what can be chosen, what is allowed, and how it is resolved once, at the edge.

A plan is a complete `Config` written as YAML. Precedence: defaults < plan < YAML file < `--set a.b=value`.
"""

from volseg.config.data import (
    IGNORE,
    AugmentationConfig,
    CtNormalization,
    DataConfig,
    MinMax,
    Normalization,
    Others,
    Percentiles,
    PreprocessingConfig,
    Region,
    Window,
    ZScore,
    with_ignore,
)
from volseg.config.dicom import NO_RULES, DicomRules, SeriesRule, StructureConfig
from volseg.config.domain import DomainConfig, IntensityRange
from volseg.config.inference import InferenceConfig, LabelRule
from volseg.config.learning import LossConfig, OptimizerName, TrainingConfig
from volseg.config.modality import MIXED, UNKNOWN, known_modality, named_modality
from volseg.config.networks import (
    AttentionUnet,
    BlockUNetConfig,
    DynUNet,
    NetworkConfig,
    NetworkName,
    PlainUNet,
    ResidualEncoderUNet,
    SegResNet,
    SwinUNETR,
    UNet,
    VNet,
)
from volseg.config.partial import PartialConfig, PartialData
from volseg.config.reading import AS_STATED, GeometryChoice, ReadingRules
from volseg.config.resolve import (
    Config,
    dump,
    merge,
    nest,
    one_of,
    parse_assignments,
    read_config,
    read_overrides,
    validate,
)
from volseg.config.section import AXES

__all__ = [
    "AS_STATED",
    "AXES",
    "IGNORE",
    "MIXED",
    "NO_RULES",
    "UNKNOWN",
    "AttentionUnet",
    "AugmentationConfig",
    "BlockUNetConfig",
    "Config",
    "CtNormalization",
    "DataConfig",
    "DicomRules",
    "DomainConfig",
    "DynUNet",
    "GeometryChoice",
    "InferenceConfig",
    "IntensityRange",
    "LabelRule",
    "LossConfig",
    "MinMax",
    "NetworkConfig",
    "NetworkName",
    "Normalization",
    "OptimizerName",
    "Others",
    "PartialConfig",
    "PartialData",
    "Percentiles",
    "PlainUNet",
    "PreprocessingConfig",
    "ReadingRules",
    "Region",
    "ResidualEncoderUNet",
    "SegResNet",
    "SeriesRule",
    "StructureConfig",
    "SwinUNETR",
    "TrainingConfig",
    "UNet",
    "VNet",
    "Window",
    "ZScore",
    "dump",
    "known_modality",
    "merge",
    "named_modality",
    "nest",
    "one_of",
    "parse_assignments",
    "read_config",
    "read_overrides",
    "validate",
    "with_ignore",
]
