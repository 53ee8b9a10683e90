"""A model made of parts -> one mask: each part's labels are painted over those before, where a coarse model looked."""

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
    """A case as it was read: each part brings it to its own form, one after the other, so that memory holds one.

    Attributes:
        volume: Its channels.
        name: What the log calls it.
        modalities: What the files of each channel state.
        mismatches: How it lies clearly outside what the model was trained on.
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
        """What its voxels take: as they are, and as a part sees them."""
        return 2 * self.volume.array.nbytes / 1e9


class PartsPredictor:
    """A model made of parts, ready to segment one case after the other, as a `Predictor` does.

    Args:
        model: Its parts.
        cache: Folder in which it is remembered how each runs fastest; by default one of the user's.

    Raises:
        CheckpointError: If the folds of a part do not go with each other.
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
        """What the masks depend on beside the images."""
        predictors = [*([self._coarse] if self._coarse else []), *self._parts]
        around = [f"{self._around.labels} {self._around.margin_mm}"] if self._around else []
        return [*around, *(each for predictor in predictors for each in predictor.identity)]

    def prepare(self, case: Case) -> PreparedVolume:
        """Read a case.

        Raises:
            DataError: If the images cannot be used.
            GeometryError: If they do not say where they lie, or do not lie on one grid.
        """
        volume = read_images(case, self.data.channels)
        modalities = [stated_modality(case.images[channel]) for channel in self.data.channels]
        return self.prepare_volume(volume, f"case {case.case_id}", modalities)

    def prepare_volume(self, volume: Volume, name: str, modalities: Sequence[str] = ()) -> PreparedVolume:
        """A volume that was read.

        Args:
            volume: Its channels in the order of the model's.
            name: What the log calls it.
            modalities: What the files of each channel state; nothing is known where it is left out.
        """
        traits = ImageTraits.of(volume, modalities)
        return PreparedVolume(volume, name, modalities, tuple(mismatches(traits, self._model.config)))

    def segment(
        self, prepared: PreparedVolume, on_window: OnWindow = ignore_windows, room: Path | None = None
    ) -> Segmented:
        """Ask each part, one after the other.

        Args:
            prepared: The case.
            on_window: Told how many windows of a part are done, and of how many.
            room: None: there are no probabilities of labels that are painted over each other.

        Raises:
            DataError: If it needs more memory than there is, or probabilities are wanted.
        """
        if room is not None:
            raise DataError(
                "the model is made of parts, which have no probabilities together", hint="leave out --probabilities"
            )
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
        """Post-process what was painted; each part has finished its own labels."""
        return postprocess_as_it_lies(segmented.mask, self._model.config.rules)


def surroundings(mask: Mask, around: Surroundings) -> Box | None:
    """The box of some labels and a margin about them; None where there are none of them.

    Args:
        mask: What the coarse model found.
        around: Which labels, and how much.
    """
    found = Box.around(np.isin(mask.array, around.labels))
    if found is None:
        return None
    margins = [math.floor(around.margin_mm / size_mm) for size_mm in mask.geometry.spacing_mm]
    return found.grown(margins, mask.geometry.shape)


def _ask(predictor: Predictor, prepared: PreparedVolume, box: Box, on_window: OnWindow) -> Segmented:
    """What a part says of a box of a volume, whose voxels it may change: they are copied."""
    volume = prepared.volume
    part = Volume(volume.array[:, *box].copy(order="K"), volume.geometry.part(box))
    return predictor.segment(predictor.prepare_volume(part, prepared.name, prepared.modalities), on_window)


class CasePredictor(Protocol):
    """What segments cases: prepared by it, they are its own."""

    data: DataConfig
    memory_gb: float

    @property
    def identity(self) -> list[str]:
        """What the masks depend on beside the images."""

    def prepare(self, case: Case) -> Any:
        """Read a case."""

    def prepare_volume(self, volume: Volume, name: str, modalities: Sequence[str] = ()) -> Any:
        """A volume that was read."""

    def segment(self, prepared: Any, on_window: OnWindow = ignore_windows, room: Path | None = None) -> Segmented:
        """Ask the networks about every voxel."""

    def finish(self, segmented: Segmented) -> Mask:
        """Post-process."""


def predictor_of(models: Sequence[TrainedNetwork], cache: Path | None = None) -> CasePredictor:
    """What segments with some models: averages of their answers, or the parts of one.

    Raises:
        CheckpointError: If they do not go with each other.
    """
    first, *others = models
    return PartsPredictor(first, cache) if first.parts and not others else Predictor(models, cache)
