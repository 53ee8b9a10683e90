"""Predict one case: read it, run the networks, and make a mask on its own grid."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from threading import Lock
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from volseg.cases import Case, read_images, read_region
from volseg.config import STORED, DataConfig, dump
from volseg.errors import CheckpointError, DataError, MemoryShortageError
from volseg.image.box import Box
from volseg.image.resampled import ResampledVolume
from volseg.image.volume import Mask, Volume
from volseg.inference.engine_trials import default_cache, fastest_engine, remember, remembered, trial_key, try_engines
from volseg.inference.engines import (
    Engine,
    allowed,
    available,
    averaged,
    is_shortage,
    split_on_oom,
    start,
    subtract_cutoffs,
)
from volseg.inference.mirroring import Mirroring
from volseg.inference.restore import form_of
from volseg.inference.segmentation import Limits, Network, OnWindow, Work, default_memory_gb, ignore_windows, segment
from volseg.inference.sliding import look
from volseg.inference.windows import SlidingWindow, lay
from volseg.io import SeriesSource, stated_modality
from volseg.io.disk_errors import output_error
from volseg.io.measurements import measuring
from volseg.model.checkpoint import TrainedNetwork
from volseg.model.domain import ImageTraits, mismatches
from volseg.model.label_encoding import cutoffs, label_values, probabilities, winners
from volseg.prediction.postprocess import postprocess_as_it_lies
from volseg.prediction.prepared import Prepared
from volseg.prediction.streamed import prepare_streamed
from volseg.system import take_room

#: Number of patches on which engines are tried out.
_TRIAL_PATCHES = 2
#: With less than this, strips are as narrow as they get: a case that still runs out of memory is given up.
_LEAST_MEMORY_GB = 1.0
#: A picture that takes more than this fraction (1 / N) of the memory is read part by part.
_SHARE_OF_A_PICTURE = 2

_Scalar = TypeVar("_Scalar", bound=np.generic)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Segmented:
    """The result of the networks.

    Attributes:
        mask: On the grid of the case, before post-processing.
        network_seconds: Time in the networks.
        restore_seconds: Time from their logits to the mask.
        windows: Number of windows.
        probabilities: (I, J, K, labels) in 255ths, on disk; None if not requested.
    """

    mask: Mask
    network_seconds: float
    restore_seconds: float
    windows: int
    probabilities: NDArray[np.uint8] | None = None


class Predictor:
    """Models, ready to segment one case after the other.

    The steps are separate, so that a batch can read one case, segment another and write a third at the same time.

    Args:
        models: One or more with the same channels and labels; their logits are averaged.
        cache: Folder that remembers how a model runs fastest; by default one of the user's.

    Raises:
        CheckpointError: If the models differ in channels, labels or regions, or in the part of a volume that they see.
    """

    def __init__(self, models: Sequence[TrainedNetwork], cache: Path | None = None) -> None:
        check_ensemble(models)
        first = models[0].config
        self.data, self.rules, self.inference = first.data, first.rules, first.inference
        self.memory_gb = self.inference.memory_gb or default_memory_gb()
        self._cache = cache or default_cache()
        self._models = tuple(models)
        self._kinds = _by_kind(models)
        self._cutoffs = tuple(map(fmean, zip(*(cutoffs(model.config.data) for model in models), strict=True)))
        self._networks: list[Network] = []
        self._running = Lock()
        self._previous = Predictor(models[0].previous, cache) if models[0].previous else None

    @property
    def identity(self) -> list[str]:
        """Everything the masks depend on besides the images: a hash of each model and its settings."""
        own = [f"{model.fingerprint} {dump(model.config)}" for model in self._models]
        return own + (self._previous.identity if self._previous else [])

    def prepare(self, case: Case) -> Prepared:
        """Read a case and normalise it.

        Raises:
            DataError: If the images cannot be used.
            GeometryError: If they do not state where they lie, or do not share a grid.
        """
        if self._models[0].config.preprocessing.axes == STORED:
            self._refuse_series(case)
        modalities = [stated_modality(case.images[channel]) for channel in self.data.channels]
        configs = [model.config for model in self._models]
        if large := prepare_streamed(case, configs, modalities, self.memory_gb / _SHARE_OF_A_PICTURE):
            return large
        volume = read_images(case, self.data.channels)
        region = read_region(case, volume.geometry)
        return replace(self.prepare_volume(volume, f"case {case.case_id}", modalities), region=region)

    def _refuse_series(self, case: Case) -> None:
        """Check that images are not stored slice by slice in an order without three axes.

        Raises:
            DataError: If they are; names the case.
        """
        if any(isinstance(source, SeriesSource) for source in case.images.values()):
            raise DataError(
                f"case {case.case_id} is DICOM, but the model uses the axis order in which other files are stored",
                hint="import the model again and state its axes: volseg import --axes RAS, or LPS ...",
            )

    def prepare_volume(self, volume: Volume, name: str, modalities: Sequence[str] = ()) -> Prepared:
        """Preprocess a volume for the networks.

        Args:
            volume: Its channels in the order of the models'; its voxels are changed in place where possible.
            name: Name for the log.
            modalities: Modalities stated by the files of each channel; unknown if left out.
        """
        previous = None
        if self._previous:  # it changes voxels, too
            copied = Volume(volume.array.copy(order="K"), volume.geometry)
            previous = self._previous.prepare_volume(copied, name, modalities)
        traits = ImageTraits.of(volume, modalities)
        found = tuple(dict.fromkeys(each for model in self._models for each in mismatches(traits, model.config)))
        preprocessings = [kind[0].config.preprocessing for kind in self._kinds]
        return Prepared.of(volume, name, preprocessings, self.inference.air, found, previous)

    def segment(self, prepared: Prepared, on_window: OnWindow = ignore_windows, room: Path | None = None) -> Segmented:
        """Run the networks on every voxel, of one case at a time, even if called from several threads.

        Args:
            prepared: The case.
            on_window: Called with the number of windows done and their total.
            room: Folder on whose disk probabilities are collected; None if not needed.

        Raises:
            DataError: If it needs more memory than is available.
        """
        with self._running:
            if self._previous and prepared.previous:
                earlier = self._previous.finish(self._previous.segment(prepared.previous, on_window))
                prepared = prepared.beside(earlier, self.data.previous_labels)
            return self._segment(prepared, on_window, room)

    def _segment(self, prepared: Prepared, on_window: OnWindow, room: Path | None) -> Segmented:
        if not self._networks:
            self._networks = [
                self._start(kind, network_input)
                for kind, network_input in zip(self._kinds, prepared.inputs, strict=True)
            ]
        began = perf_counter()
        work = Work(on_window)
        mask = blank_mask(prepared.geometry.shape, label_values(self.data).dtype)
        likely = None
        if room is not None:
            likely = _on_disk((*prepared.geometry.shape, len(self.data.output_labels)), np.dtype(np.uint8), room)
        memory_gb = self.memory_gb
        while True:
            try:
                self._decide(prepared, Limits(self.inference.batch_size, memory_gb), work, mask, likely)
                break
            except (MemoryError, RuntimeError) as error:
                if not is_shortage(error):
                    raise
                if memory_gb < _LEAST_MEMORY_GB:
                    raise MemoryShortageError(
                        f"the case needs more memory than is available: {prepared.geometry}"
                    ) from error
                memory_gb /= 2  # narrower strips
                logger.warning("out of memory; continuing with %.2g GB", memory_gb)
        if prepared.region is not None:
            for found in (mask, likely):
                if found is not None:
                    found[~prepared.region] = 0
        return Segmented(
            Mask(mask, prepared.geometry, self.data.output_labels),
            work.network_seconds,
            perf_counter() - began - work.network_seconds,
            work.done,
            likely,
        )

    def _decide(
        self,
        prepared: Prepared,
        limits: Limits,
        work: Work,
        mask: NDArray[np.unsignedinteger],
        likely: NDArray[np.uint8] | None,
    ) -> None:
        """Fill the mask and, if requested, the probabilities."""
        values = label_values(self.data)
        seen = prepared.order.apply(mask)[prepared.box]  # a view: what is written there is in the mask
        keep = None
        if likely is not None:
            by_label = prepared.order.apply(np.moveaxis(likely, -1, 0))[:, *prepared.box]

            def keep(box: Box, logits: torch.Tensor) -> None:
                raised = logits + torch.tensor(self._cutoffs).to(logits)
                shares = (probabilities(raised, self.data) * 255).round().to(torch.uint8)
                by_label[(slice(None), *box)] = shares.movedim(-1, 0).cpu().numpy()

        decided = segment(
            self._networks, prepared.inputs, prepared.tissue, lambda each: winners(each, self.data), limits, work, keep
        )
        for box, numbers in decided:
            seen[box] = values[numbers]

    def finish(self, segmented: Segmented) -> Mask:
        """Post-process."""
        return postprocess_as_it_lies(segmented.mask, self.rules)

    def _start(self, kind: Sequence[TrainedNetwork], network_input: ResampledVolume) -> Network:
        config = kind[0].config
        patch = config.window
        device = next(kind[0].network.parameters()).device
        engines = [self._choose_engine(model, network_input, device) for model in kind]
        runs = [
            start(engine, model.network, self.data.inputs, patch, device)
            for engine, model in zip(engines, kind, strict=True)
        ]
        run = split_on_oom(subtract_cutoffs(averaged(runs), self._cutoffs))
        finest = max((engine.sums_dtype for engine in engines), key=lambda dtype: dtype.itemsize)
        form = form_of(config.preprocessing.answers, self.data, self._cutoffs)
        window, mirroring = SlidingWindow.of(config), Mirroring.of(config)
        return Network(run, finest, window, mirroring, self.data.outputs, device, form)

    def _choose_engine(self, model: TrainedNetwork, network_input: ResampledVolume, device: torch.device) -> Engine:
        """Return the engine that the configuration names, else the one chosen before, else the best in trials."""
        engines = allowed(model.config.inference, available(device))
        if len(engines) == 1:
            return engines[0]
        key = trial_key(model.fingerprint, engines, device)
        with measuring(self._cache, key):
            known = remembered(key, engines, self._cache)
            if known is None:
                known = self._try_out(engines, model, network_input, device)
                remember(key, known, self._cache)
        return known

    def _try_out(
        self, engines: Sequence[Engine], model: TrainedNetwork, network_input: ResampledVolume, device: torch.device
    ) -> Engine:
        """Return the engine that is fastest on some patches of an image."""
        patch = model.config.window
        windows = lay(network_input.shape, SlidingWindow(patch, model.config.inference.overlap))
        places = windows.places()
        chosen = {places[len(places) * (2 * n + 1) // (2 * _TRIAL_PATCHES)] for n in range(_TRIAL_PATCHES)}
        trials = try_engines(
            engines,
            lambda engine: start(engine, model.network, self.data.inputs, patch, device),
            [look(network_input, windows, place)[None] for place in sorted(chosen)],
            lambda logits: winners(logits.movedim(0, -1), self.data),
        )
        return fastest_engine(trials)


def blank_mask(shape: tuple[int, int, int], dtype: np.dtype[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Return zeros with the first axis fastest, as NIfTI is written; on disk if memory is too small."""
    try:
        return np.zeros(shape, dtype, order="F")
    except MemoryError:
        return _on_disk(shape, dtype, None)


def _on_disk(shape: tuple[int, ...], dtype: np.dtype[_Scalar], room: Path | None) -> NDArray[_Scalar]:
    """Return zeros in an unnamed temporary file, which is deleted with them.

    If a folder is given, space on its disk is reserved at once: if the disk turned out to be full when a page of the
    file is touched, the process would be killed.
    """
    try:
        with tempfile.TemporaryFile(dir=room) as file:
            if room is not None:
                take_room(file, room, math.prod(shape) * dtype.itemsize)
            return np.memmap(file, dtype, "w+", shape=shape, order="F")
    except OSError as error:
        raise output_error(room or Path(tempfile.gettempdir()), error) from error


def check_ensemble(models: Sequence[TrainedNetwork]) -> None:
    """Check that the outputs of models can be averaged.

    Raises:
        CheckpointError: If their channels, labels or regions differ, or the part of a volume that they see.
    """
    first = models[0].config.preprocessing
    before = [each.fingerprint for each in models[0].previous]
    for model in models[1:]:
        if [each.fingerprint for each in model.previous] != before:
            raise CheckpointError(
                "the models belong to different cascades, so their outputs cannot be averaged",
                hint="predict with each of them separately",
            )
        own = model.config.preprocessing
        if (own.axes, own.crop) != (first.axes, first.crop):
            raise CheckpointError(
                "the models differ in preprocessing.axes or preprocessing.crop, so that they do not see the same part "
                "of a volume",
                hint="predict with each of them separately",
            )
        if _answered(model) != _answered(models[0]):
            raise CheckpointError(
                "the models differ in channels, labels or regions, so their outputs cannot be averaged",
                hint="predict with each of them separately",
            )


def _answered(model: TrainedNetwork) -> DataConfig:
    """Return a model's inputs and outputs; decision thresholds and descriptive data may differ between models."""
    data = model.config.data
    regions = tuple(region.model_copy(update={"threshold": None}) for region in data.regions)
    return data.model_copy(update={"regions": regions, "modality": ()})


def _by_kind(models: Sequence[TrainedNetwork]) -> list[list[TrainedNetwork]]:
    """Group models that can share patches of the same preprocessed volume."""
    kinds: dict[str, list[TrainedNetwork]] = {}
    for model in models:
        seen = (model.config.preprocessing, model.config.patches.size, model.config.inference)
        kinds.setdefault(repr(seen), []).append(model)
    return list(kinds.values())
