"""The public calls: what the command line, the demo and every server are made of.

Some arguments mean the same everywhere: `config` is a YAML file of some keys of the configuration, or the keys
themselves; `changes` are keys laid over those; `allow_gaps` bridges missing slices of DICOM series by interpolation;
`overwrite` gives up files in the way that volseg did not write, or that were changed since; an input never is;
`threads` is the number of threads of this process from then on, and `device` where networks run.
Long work reports to a `progress` callback, and ends when that raises `Cancelled`. Wrong input raises a `VolsegError`
of the kind that fits: `ConfigError`, `DataError`, `GeometryError`, `CheckpointError`, `OutputError`, `TrainingError`.
"""

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
    "plan",
    "report",
    "show",
    "train",
]
