"""Preparation of cases for training: preprocessed, cached on disk and never stale.

The name of a prepared case contains a hash of the bytes of its files, of everything in the configuration that its
preparation depends on, and of the versions of the code. A changed input is therefore always prepared again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.cases import Case, annotated_labels, check_sides
from volseg.config import Config
from volseg.errors import DataError, ItemOutputError, WorkerLostError
from volseg.io import SetAside
from volseg.io.files import atomic_path, file_name, remove_leftovers
from volseg.io.source import digest
from volseg.model.label_encoding import unknown_outputs
from volseg.parallel import side_by_side
from volseg.progress import Progress, ignore_progress
from volseg.training.patches import find_locations
from volseg.transforms import IMAGE, REFERENCE, geometry_of, preprocess
from volseg.version import __version__

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A preprocessed case.

    Attributes:
        case_id: The case id.
        image_file: File that holds `image`.
        reference_file: File that holds `reference`.
        locations: Label value -> (N,) indices of some of its voxels in `reference.ravel()`.
        voxels: Label value -> number of its voxels in `reference`.
        spacing_mm: Voxel size.
        unknown: The outputs of a network that are not annotated in its reference.
    """

    case_id: str
    image_file: Path
    reference_file: Path
    locations: Mapping[int, NDArray[np.uint32]]
    voxels: Mapping[int, int]
    spacing_mm: tuple[float, float, float]
    unknown: tuple[bool, ...]

    @property
    def image(self) -> NDArray[np.float32]:
        """(C, R, A, S) float32, memory-mapped only while in use: many cases would keep too many files open."""
        return _map(self.image_file)

    @property
    def reference(self) -> NDArray[np.unsignedinteger]:
        """(R, A, S) uint8 or uint16, memory-mapped in the same way."""
        return _map(self.reference_file)


def prepare_cases(
    cases: Sequence[Case],
    config: Config,
    folder: Path,
    progress: Progress = ignore_progress,
    executor: Executor | None = None,
) -> tuple[dict[str, PreparedCase], list[SetAside]]:
    """Prepare cases that are not prepared yet.

    Args:
        cases: Cases with images and references.
        config: Data and preprocessing.
        folder: Folder for the prepared cases.
        progress: Called per case.
        executor: Prepares the cases; by default threads of this process.

    Returns:
        Case id -> prepared case, and the cases that cannot be used, with reasons.

    Raises:
        ConfigError: If a reference holds a value that is not in `data.labels`.
        DataError: If no case can be used.
        OutputError: If the folder cannot be written.
    """
    remove_leftovers(folder)
    prepared: dict[str, PreparedCase] = {}
    problems: list[SetAside] = []
    progress("prepare", 0, len(cases))
    outcomes = side_by_side(partial(_attempt, config=config, folder=folder), cases, executor, _lost)
    for done, (case, outcome) in enumerate(zip(cases, outcomes, strict=True), start=1):
        if isinstance(outcome, PreparedCase):
            prepared[case.case_id] = outcome
        else:
            problems.append(outcome)
            logger.warning("case %s is not used: %s", case.case_id, outcome.reason)
        progress("prepare", done, len(cases), case.case_id)
    if cases and not prepared:
        raise DataError(
            f"none of the {len(cases)} cases can be used; the first: {problems[0].reason}",
            hint="run `volseg inspect` to see the problem of each",
        )
    return prepared, problems


def _attempt(case: Case, config: Config, folder: Path) -> PreparedCase | SetAside:
    try:
        return _prepare(case, config, folder)
    except (DataError, ItemOutputError) as error:
        return SetAside(case.image.place, error.explanation)
    except Exception as error:
        error.add_note(f"while preparing case {case.case_id}")
        raise


def _lost(case: Case, error: WorkerLostError) -> SetAside:
    return SetAside(case.image.place, error.explanation)


def _prepare(case: Case, config: Config, folder: Path) -> PreparedCase:
    base = folder / file_name(f"{case.case_id}-{_key(case, config)}")
    ends = (".image.npy", ".labels.npy", ".places.npz")
    image, reference, locations = (base.with_name(base.name + end) for end in ends)
    if not locations.is_file():  # written last, so that all three files exist or none counts
        sample = preprocess(case, config.data, config.preprocessing, reference=True)
        labels = sample[REFERENCE].numpy()[0]
        labels = labels.astype(np.uint8 if labels.max() <= 255 else np.uint16)
        _save(image, sample[IMAGE].numpy().astype(np.float32))
        _save(reference, labels)
        with atomic_path(locations) as temporary:
            taught = labels if config.data.ignored_value is None else labels * (labels != config.data.ignored_value)
            found = {str(value): places for value, places in find_locations(taught, seed=0).items()}
            counts, spacing_mm = np.bincount(taught.ravel()), geometry_of(sample[IMAGE]).spacing_mm
            np.savez(temporary, allow_pickle=False, counts=counts, spacing_mm=spacing_mm, **found)
    with np.load(locations, allow_pickle=False) as stored:
        counts = stored["counts"]
        r, a, s = stored["spacing_mm"].tolist()
        places = {int(value): stored[value] for value in stored.files if value.isdecimal()}
    annotated = annotated_labels(case, config.data.reference_labels, places)
    check_sides(case.case_id, annotated, config.augmentation.swap_labels)
    unknown = unknown_outputs(annotated, config.data)
    voxels = {value: int(counts[value]) for value in places}
    return PreparedCase(case.case_id, image, reference, places, voxels, (r, a, s), unknown)


def _key(case: Case, config: Config) -> str:
    """Return a hash of everything the prepared case depends on."""
    settings = [config.data.model_dump(mode="json"), config.preprocessing.model_dump(mode="json")]
    versions = [__version__, np.__version__]
    sources = [*case.images.values(), *(each for each in (case.reference, case.region) if each)]
    return digest(sources, json.dumps([versions, settings], sort_keys=True))


def _save(path: Path, array: NDArray[np.generic]) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, np.ascontiguousarray(array), allow_pickle=False)


def _map(path: Path) -> Any:
    return np.load(path, mmap_mode="r", allow_pickle=False)
