"""Models made of parts: each part paints its labels over the previous ones, where a coarse model found something."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from volseg.cases import Case, read_images
from volseg.config import DataConfig
from volseg.errors import DataError
from volseg.image.box import Box
from volseg.image.geometry import Geometry
from volseg.image.volume import Mask, Volume
from volseg.inference.segmentation import OnWindow, default_memory_gb, ignore_windows
from volseg.io import stated_modality
from volseg.model.checkpoint import Surroundings, TrainedNetwork
from volseg.model.domain import ImageTraits, mismatches
from volseg.model.label_encoding import label_values
from volseg.prediction.postprocess import postprocess_as_it_lies
from volseg.prediction.predictor import Predictor, Segmented, blank_mask
from volseg.prediction.prepared import Checked


@dataclass(frozen=True, eq=False)
class PreparedVolume(Checked):
    """A case as read: each part preprocesses it in turn, so that memory holds one preprocessed copy at a time.

    Attributes:
        volume: Its channels.
        name: Name for the log.
        modalities: Modalities stated by the files of each channel.
        mismatches: How it clearly lies outside the training data.
    """

    volume: Volume
    name: str
    modalities: Sequence[str]
    mismatches: tuple[str, ...]

    @property
    def geometry(self) -> Geometry:
        """Its grid."""
        return self.volume.geometry

    @property
    def gigabytes(self) -> float:
        """Memory for its voxels: as read, and as a part sees them."""
        return 2 * self.volume.array.nbytes / 1e9


class PartsPredictor:
    """A model made of parts, ready to segment one case after the other, as a `Predictor` does.

    Args:
        model: Its parts.
        cache: Folder that remembers how each runs fastest; by default one of the user's.

    Raises:
        CheckpointError: If the folds of a part are incompatible.
    """

    def __init__(self, model: TrainedNetwork, cache: Path | None = None) -> None:
        self.data = model.config.data
        self.memory_gb = model.config.inference.memory_gb or default_memory_gb()
        self._model = model
        self._parts = [Predictor(folds, cache) for folds in model.parts]
        self._around = model.around
        self._coarse = Predictor(model.around.models, cache) if model.around else None

    @property
    def identity(self) -> list[str]:
        """Everything the masks depend on besides the images."""
        predictors = [*([self._coarse] if self._coarse else []), *self._parts]
        around = [f"{self._around.labels} {self._around.margin_mm}"] if self._around else []
        return [*around, *(each for predictor in predictors for each in predictor.identity)]

    def prepare(self, case: Case) -> PreparedVolume:
        """Read a case.

        Raises:
            DataError: If the images cannot be used.
            GeometryError: If they do not state where they lie, or do not share a grid.
        """
        volume = read_images(case, self.data.channels)
        modalities = [stated_modality(case.images[channel]) for channel in self.data.channels]
        return self.prepare_volume(volume, f"case {case.case_id}", modalities)

    def prepare_volume(self, volume: Volume, name: str, modalities: Sequence[str] = ()) -> PreparedVolume:
        """Prepare a volume in memory.

        Args:
            volume: Its channels in the order of the model's.
            name: Name for the log.
            modalities: Modalities stated by the files of each channel; unknown if left out.
        """
        traits = ImageTraits.of(volume, modalities)
        return PreparedVolume(volume, name, modalities, tuple(mismatches(traits, self._model.config)))

    def segment(
        self, prepared: PreparedVolume, on_window: OnWindow = ignore_windows, room: Path | None = None
    ) -> Segmented:
        """Run each part, one after the other.

        Args:
            prepared: The case.
            on_window: Called with the number of windows of a part that are done, and their total.
            room: Must be None: there are no probabilities of labels that are painted over each other.

        Raises:
            DataError: If it needs more memory than is available, or probabilities are requested.
        """
        if room is not None:
            raise DataError("the model is made of parts, and gives no probabilities", hint="leave out --probabilities")
        began, shape = perf_counter(), prepared.geometry.shape
        mask = blank_mask(shape, label_values(self.data).dtype)
        work: list[Segmented] = []
        box: Box | None = Box.whole(shape)
        if self._coarse and self._around:
            work.append(_ask(self._coarse, prepared, Box.whole(shape), on_window))
            box = surroundings(self._coarse.finish(work[0]), self._around)
        if box is not None:
            for part in self._parts:
                work.append(_ask(part, prepared, box, on_window))
                labels = part.finish(work[-1]).array
                np.copyto(mask[box], labels, where=labels != 0, casting="unsafe")
        seconds = sum(each.network_seconds for each in work)
        windows = sum(each.windows for each in work)
        painted = Mask(mask, prepared.geometry, self.data.output_labels)
        return Segmented(painted, seconds, perf_counter() - began - seconds, windows)

    def finish(self, segmented: Segmented) -> Mask:
        """Post-process the combined mask; each part has already post-processed its own labels."""
        return postprocess_as_it_lies(segmented.mask, self._model.config.rules)


def surroundings(mask: Mask, around: Surroundings) -> Box | None:
    """Return the box of some labels plus a margin; None if the labels are absent.

    Args:
        mask: The result of the coarse model.
        around: Which labels, and the margin.
    """
    found = Box.around(np.isin(mask.array, around.labels))
    if found is None:
        return None
    margins = [math.floor(around.margin_mm / size_mm) for size_mm in mask.geometry.spacing_mm]
    return found.grown(margins, mask.geometry.shape)


def _ask(predictor: Predictor, prepared: PreparedVolume, box: Box, on_window: OnWindow) -> Segmented:
    """Run a part on a box of a volume, copied because the part may change its voxels."""
    volume = prepared.volume
    part = Volume(volume.array[:, *box].copy(order="K"), volume.geometry.part(box))
    return predictor.segment(predictor.prepare_volume(part, prepared.name, prepared.modalities), on_window)


class CasePredictor(Protocol):
    """Segments cases; a case it prepared is used by it alone."""

    data: DataConfig
    memory_gb: float

    @property
    def identity(self) -> list[str]:
        """Everything the masks depend on besides the images."""

    def prepare(self, case: Case) -> Any:
        """Read a case."""

    def prepare_volume(self, volume: Volume, name: str, modalities: Sequence[str] = ()) -> Any:
        """Prepare a volume in memory."""

    def segment(self, prepared: Any, on_window: OnWindow = ignore_windows, room: Path | None = None) -> Segmented:
        """Run the networks on every voxel."""

    def finish(self, segmented: Segmented) -> Mask:
        """Post-process."""


def predictor_of(models: Sequence[TrainedNetwork], cache: Path | None = None) -> CasePredictor:
    """Return the predictor for some models: averaging their logits, or combining the parts of one.

    Raises:
        CheckpointError: If they are incompatible.
    """
    first, *others = models
    return PartsPredictor(first, cache) if first.parts and not others else Predictor(models, cache)
