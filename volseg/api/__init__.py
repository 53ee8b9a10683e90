"""The public functions, which the command line, the demo and servers call.

Some arguments mean the same everywhere: `config` is a YAML file with some keys of the configuration, or a mapping of
the keys; `changes` are keys that override those; `allow_gaps` bridges missing slices of DICOM series by interpolation;
`overwrite` allows replacing files that volseg did not write, or that were changed since, but never an input; `threads`
sets the number of threads of this process from then on, and `device` where networks run.
Long operations report to a `progress` callback, and end when it raises `Cancelled`. Invalid input raises a subclass of
`VolsegError`: `ConfigError`, `DataError`, `GeometryError`, `CheckpointError`, `OutputError` or `TrainingError`.
"""

from volseg.api.batches import merge
from volseg.api.results import compare, evaluate, export, export_folder, inspect, report, show
from volseg.api.training import choose_dimensions, plan, train
from volseg.loaded_model import load

__all__ = [
    "choose_dimensions",
    "compare",
    "evaluate",
    "export",
    "export_folder",
    "inspect",
    "load",
    "merge",
    "plan",
    "report",
    "show",
    "train",
]
