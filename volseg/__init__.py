"""volseg: 3D volumetric segmentation of MRI and CT, from a folder of scans to masks on the anatomy.

    import volseg

    run = volseg.train("data/train", "runs/a", minutes=10)
    model = volseg.load("runs/a")
    model.predict("patient.nii.gz").save("patient.seg.nrrd")

Everything the command line does is here; nothing heavy is imported before it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from volseg.system import limit_busy_waiting
from volseg.version import __version__

limit_busy_waiting()  # has an effect only before PyTorch is loaded

if TYPE_CHECKING:
    from volseg import transforms
    from volseg.api import (
        choose_dimensions,
        compare,
        evaluate,
        export,
        export_folder,
        inspect,
        merge,
        plan,
        report,
        show,
        train,
    )
    from volseg.cases import Case, Dataset
    from volseg.cases.download import download
    from volseg.citing import Citation, cite
    from volseg.config import Config
    from volseg.converting import convert
    from volseg.demo import Demo, run_demo
    from volseg.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        GeometryError,
        MemoryShortageError,
        OutputError,
        OutputExistsError,
        TrainingError,
        VolsegError,
        WorkerError,
    )
    from volseg.evaluation import Comparison, Evaluation
    from volseg.image.geometry import Geometry
    from volseg.image.volume import Label, Mask, Volume
    from volseg.importing import import_model
    from volseg.inspection import InspectedItem, Inspection
    from volseg.loaded_model import Model, load
    from volseg.mask_export import ExportedCase, ExportStatus
    from volseg.parallel import use_threads
    from volseg.planning import Plan
    from volseg.prediction.cases_csv import CaseResult, CaseStatus
    from volseg.prediction.job_array import Merge
    from volseg.progress import Cancelled, Progress, ProgressLines
    from volseg.reporting.card import card
    from volseg.results import Batch, BatchCase, Prediction
    from volseg.training.choice import Choice
    from volseg.training.run import Run

#: Module -> the public names that are loaded from it when somebody asks for them.
_PUBLIC = {
    "volseg.api": "choose_dimensions compare evaluate export export_folder inspect merge plan report show train",
    "volseg.cases": "Case Dataset",
    "volseg.cases.download": "download",
    "volseg.citing": "Citation cite",
    "volseg.config": "Config",
    "volseg.converting": "convert",
    "volseg.demo": "Demo run_demo",
    "volseg.errors": "CheckpointError ConfigError DataError GeometryError MemoryShortageError OutputError "
    "OutputExistsError TrainingError VolsegError WorkerError",
    "volseg.evaluation": "Comparison Evaluation",
    "volseg.image.geometry": "Geometry",
    "volseg.image.volume": "Label Mask Volume",
    "volseg.importing": "import_model",
    "volseg.inspection": "InspectedItem Inspection",
    "volseg.loaded_model": "Model load",
    "volseg.mask_export": "ExportStatus ExportedCase",
    "volseg.parallel": "use_threads",
    "volseg.planning": "Plan",
    "volseg.prediction.cases_csv": "CaseResult CaseStatus",
    "volseg.prediction.job_array": "Merge",
    "volseg.progress": "Cancelled Progress ProgressLines",
    "volseg.reporting.card": "card",
    "volseg.results": "Batch BatchCase Prediction",
    "volseg.training.choice": "Choice",
    "volseg.training.run": "Run",
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = [
    "Batch",
    "BatchCase",
    "Cancelled",
    "Case",
    "CaseResult",
    "CaseStatus",
    "CheckpointError",
    "Choice",
    "Citation",
    "Comparison",
    "Config",
    "ConfigError",
    "DataError",
    "Dataset",
    "Demo",
    "Evaluation",
    "ExportStatus",
    "ExportedCase",
    "Geometry",
    "GeometryError",
    "InspectedItem",
    "Inspection",
    "Label",
    "Mask",
    "MemoryShortageError",
    "Merge",
    "Model",
    "OutputError",
    "OutputExistsError",
    "Plan",
    "Prediction",
    "Progress",
    "ProgressLines",
    "Run",
    "TrainingError",
    "VolsegError",
    "Volume",
    "WorkerError",
    "__version__",
    "card",
    "choose_dimensions",
    "cite",
    "compare",
    "convert",
    "download",
    "evaluate",
    "export",
    "export_folder",
    "import_model",
    "inspect",
    "load",
    "merge",
    "plan",
    "report",
    "run_demo",
    "show",
    "train",
    "transforms",
    "use_threads",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name == "transforms":
        return import_module("volseg.transforms")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'volseg' has no attribute {name!r}")
    found = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
