"""A trained model, loaded and ready to predict on one image or a folder of images."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields
from functools import cached_property
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from volseg.errors import CheckpointError, ConfigError, DataError
from volseg.progress import Progress, ignore_progress
from volseg.results import Batch, Prediction

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from volseg.cases import Case, Dataset
    from volseg.cases.case_ids import CaseNaming
    from volseg.config import Config
    from volseg.exporting import Encoding, Format
    from volseg.exporting.description import ModelIdentity
    from volseg.image.volume import Label
    from volseg.io import Source
    from volseg.io.in_memory import InMemoryImage
    from volseg.model.checkpoint import TrainedNetwork
    from volseg.model.stored import StoredModel
    from volseg.prediction.cases_csv import CaseResult
    from volseg.prediction.parts import CasePredictor

StrPath = str | PathLike[str]
#: Keys of the configuration, dotted or nested: {"training.epochs": 50}.
Changes = Mapping[str, Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network, or an ensemble of several, with everything needed to use it.

    Attributes:
        networks: Each with its own configuration.
        files: Where they were loaded from.
        name: What DICOM objects call it.
        changes: How the configuration differs from that of training, for about.json.
        stored: Where other processes load it from; None for a model in memory.
    """

    networks: tuple[TrainedNetwork, ...]
    files: tuple[Path, ...] = ()
    name: str = "model"
    changes: tuple[str, ...] = ()
    stored: StoredModel | None = None

    @property
    def network(self) -> nn.Module:
        """The network, in evaluation mode: (B, C, R, A, S) float -> logits (B, outputs, R, A, S).

        Raises:
            CheckpointError: If this is an ensemble; `networks` has them all.
        """
        if len(self.networks) > 1:
            raise CheckpointError(
                f"the model is an ensemble of {len(self.networks)} networks", hint="use one of `networks`"
            )
        return self.networks[0].network

    @property
    def config(self) -> Config:
        """The configuration it was trained with; for an ensemble, that of the first network."""
        return self.networks[0].config

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the image channels, in order."""
        return self.config.data.channels

    @property
    def licence(self) -> str:
        """The licence of the weights, where the program they come from states one; else empty."""
        from volseg.about import read_about

        return read_about(self.files[0].parent).facts.get("licence", "") if self.files else ""

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels that the values of its masks stand for."""
        return self.config.data.output_labels

    def find_cases(self, source: StrPath, case_id: CaseNaming = "path") -> Dataset:
        """Find the cases that `predict_folder` would segment, and what it would leave out, without segmenting them.

        Args:
            source: A data set, a file, a DICOM folder, or a tree of these.
            case_id: How cases are named, as in `predict_folder`.

        Returns:
            The cases, each of which `predict` takes, and everything else with the reason why it is set aside.

        Raises:
            DataError: If there is nothing at `source`, or only masks.
            ConfigError: If a `case_id` is unknown.
        """
        from volseg.cases.case_ids import parse_naming
        from volseg.prediction.batch_inputs import find_batch

        return find_batch(Path(source), self.config.data, naming=parse_naming(case_id)).dataset

    def predict(
        self,
        image: StrPath | Case | InMemoryImage | Mapping[str, StrPath | InMemoryImage],
        *,
        name: str = "image",
        probabilities: bool = False,
        allow_mismatch: bool = False,
        progress: Progress = ignore_progress,
    ) -> Prediction:
        """Segment one image.

        Args:
            image: A path that holds one case in any layout `predict_folder` takes; a case of `find_cases`; a `Volume`;
                an image of nibabel or SimpleITK; a MONAI `MetaTensor`; an array (I, J, K) or (C, I, J, K) with its
                affine, voxel index -> RAS+ mm; or any of these, cases aside, for each channel by name.
            name: Name of an image in memory, for warnings.
            probabilities: Whether to also return the probability of each label.
            allow_mismatch: Whether to segment an image that the model was not made for (of another modality, say), with
                a warning.
            progress: Called per window; raise `Cancelled` in it to stop.

        Returns:
            The mask, on the grid of the image (of its first channel).

        Raises:
            DataError: If the image cannot be used, the model was not made for it, or a path holds no case or several
                cases.
            GeometryError: If the image does not state where its voxels lie.
        """
        from volseg.cases import Case
        from volseg.prediction.in_memory import read_in_memory

        began = time.perf_counter()
        predictor = self._predictor
        source: Source | None = None
        if isinstance(image, str | PathLike):
            image = self._only_case(Path(image))
        if isinstance(image, Case):
            source = image.images[self.channels[0]]
            name = f"case {image.case_id}"
            prepared = predictor.prepare(image)
        else:
            volume, modalities = read_in_memory(image, self.config.data)
            prepared = predictor.prepare_volume(volume, name, modalities)
        if not allow_mismatch:
            prepared.refuse_mismatch()
        if prepared.warning:
            logger.warning("%s: %s", name, prepared.warning)
        shares: NDArray[np.float32] | None = None
        with TemporaryDirectory() as room:
            segmented = predictor.segment(
                prepared, lambda done, total: progress("predict", done, total), Path(room) if probabilities else None
            )
            if segmented.probabilities is not None:
                shares = segmented.probabilities.astype("float32")
                shares /= 255
        mask = predictor.finish(segmented)
        seconds = time.perf_counter() - began
        return Prediction(
            mask,
            seconds,
            source,
            prepared.mismatches,
            self._identity,
            usual_volumes=self.networks[0].volumes,
            known_probabilities=shares,
        )

    def predict_folder(  # noqa: PLR0913  each is an option of the command
        self,
        source: StrPath,
        output: StrPath,
        *,
        formats: Format | Sequence[Format] | None = None,
        encoding: Encoding = "binary",
        probabilities: bool = False,
        report: bool = False,
        allow_mismatch: bool = False,
        overwrite: bool = False,
        progress: Progress = ignore_progress,
        on_case_done: Callable[[CaseResult], None] | None = None,
        executor: Executor | None = None,
        part: str | None = None,
        case_id: CaseNaming = "path",
        series_description: str | None = None,
    ) -> Batch:
        """Segment every case in a folder; one bad case never stops the others, and an interrupted batch continues.

        Args:
            source: A data set, a file, a DICOM folder, or a tree of these.
            output: Folder for the masks, cases.csv and labels.json.
            formats: Of the masks; by default PNG for pictures, and NIfTI for everything else.
            encoding: Of DICOM Segmentations: "binary", or "labelmap".
            probabilities: Whether to also write the probability of each label, as 4D NIfTI.
            report: Whether to write a review of the masks, report.html and review.csv.
            allow_mismatch: Whether to segment images that the model was not made for (of another modality, say), with a
                warning in cases.csv; otherwise they fail.
            overwrite: Replace files in the place of masks and tables even if volseg did not write them; never the
                input. Without it, such a table is an error, and such a mask makes its case fail.
            progress: Called per case and window; raise `Cancelled` in it to stop.
            on_case_done: Called with each result as soon as the case is done.
            executor: Segments each case as a task of its own, such as `volseg.cluster.on(client)`; any executor of
                `concurrent.futures` whose workers see the same files. By default this process segments them all.
            part: Segments one of several parts, such as "3/8", as a job of an array does; when all are done,
                `volseg.merge` makes the table.
            case_id: How cases are named: by their "path" below `source`, by their DICOM "series" (files by their path),
                or by a "hash" of these: a pseudonym. Only pseudonyms.csv tells whose it is, and only its owner may read
                that (on Windows, whoever may read the folder); anyone who guesses a name can compute its pseudonym.
            series_description: Series description of DICOM objects, instead of "volseg: " and the labels; {format},
                {labels} and {model} in it are filled in.

        Returns:
            The outcome of each discovered case; empty if a folder holds none yet.

        Raises:
            DataError: If there is nothing at `source`, or only masks.
            ConfigError: If a format or a `case_id` is unknown, or the description is not possible.
            OutputExistsError: If a table is in the way that volseg did not write or that was changed since.
            OutputError: If the output cannot be written; finished cases are in cases.csv.
        """
        from volseg.cases.case_ids import parse_naming
        from volseg.exporting import parse_encoding, parse_formats, usual_formats
        from volseg.exporting.description import Description
        from volseg.prediction.batch import segment_batch
        from volseg.prediction.batch_inputs import find_batch
        from volseg.prediction.job_array import parse_part, segment_part
        from volseg.prediction.request import Request
        from volseg.prediction.tasks import segment_batch_on
        from volseg.reporting.batches import claim_report, describe_batch, report_batch

        if part is not None and (report or executor is not None):
            raise ConfigError(
                f"a part of a batch takes no {'report' if report else 'executor'}",
                hint="merge the parts, then segment the whole folder with it: nothing is segmented again",
            )
        kinds, coding = parse_formats(formats or ()), parse_encoding(encoding)
        description = Description.of(series_description, self._identity)
        inputs = find_batch(Path(source), self.config.data, progress, parse_naming(case_id))
        kinds = kinds or usual_formats([case.image for case in inputs.dataset.cases])
        request = Request(Path(output), kinds, coding, probabilities, allow_mismatch, overwrite, description)
        if report:
            claim_report(inputs, request.output, overwrite=overwrite)
        if part is not None:
            results = segment_part(parse_part(part), inputs, self.networks, request, progress, on_case_done)
        elif executor is not None:
            if self.stored is None:
                raise CheckpointError("a model in memory cannot be sent to workers", hint="save it, and load the file")
            results = segment_batch_on(executor, self.stored, inputs, self.networks, request, progress, on_case_done)
        else:
            results = segment_batch(inputs, self.networks, request, progress, on_case_done)
        described = self.files, self.networks[0], self.changes, results, request.output
        describe_batch(*described, report=report, is_part=part is not None)
        page = None
        if report and any(result.status == "segmented" for result in results):
            page = report_batch(inputs, self.networks[0], results, request.output, progress)
        images = {case.case_id: case.images[self.channels[0]] for case in inputs.dataset.cases}
        return Batch.of(results, request, images, self.labels, page)

    @cached_property
    def _predictor(self) -> CasePredictor:
        """The predictor, kept because starting an engine takes as long as several small images."""
        from volseg.prediction.parts import predictor_of

        return predictor_of(self.networks)

    @cached_property
    def _identity(self) -> ModelIdentity | None:
        """The identity of the model, kept because hashing its files takes time."""
        from volseg.exporting.description import ModelIdentity

        return ModelIdentity.of(self.name, self.files)

    def __repr__(self) -> str:
        kinds = " + ".join(network.config.network.name for network in self.networks)
        labels = ", ".join(label.name for label in self.labels)
        return f"<Model {self.name}: {kinds}; channels: {', '.join(self.channels)}; labels: {labels}>"

    def __getstate__(self) -> dict[str, object]:
        """Return the state that is sent to another process, without the started engines."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _only_case(self, path: Path) -> Case:
        dataset = self.find_cases(path)
        if len(dataset.cases) == 1:
            return dataset.cases[0]
        if dataset.cases:
            raise DataError(f"{path} holds {len(dataset.cases)} cases", hint="name one, or use predict_folder")
        reason = dataset.set_aside[0].reason if dataset.set_aside else "there is no image in it"
        raise DataError(f"{path} holds nothing to segment: {reason}", hint="`volseg inspect` shows details")


def load(
    model: StrPath | Sequence[StrPath],
    *,
    device: str | torch.device | None = None,
    config: StrPath | Changes | None = None,
    changes: Changes | None = None,
    allow_gaps: bool = False,
    threads: int | None = None,
    name: str | None = None,
) -> Model:
    """Load a trained model.

    Args:
        model: A run folder or a model file; several, or a run of all folds, make an ensemble whose logits are averaged.
        device: Where it runs: "cpu", "cuda", "cuda:1", "mps"; by default a CUDA device if there is one.
        config: A YAML file, or a mapping, that overrides keys of `inference`, `postprocess` and DICOM reading.
        changes: Further overrides, which take precedence.
        allow_gaps: Whether to fill missing slices of DICOM series by interpolation.
        threads: Number of threads this process computes with from now on; by default all it may use.
        name: Name of the model in DICOM objects; by default the name of the run folder.

    Returns:
        The model, ready to predict.

    Raises:
        CheckpointError: If there is none, it is damaged, or several are incompatible.
        ConfigError: If a key cannot be changed after training, the device does not exist, or the name is not possible.
    """
    from volseg.config import PartialConfig, differences
    from volseg.exporting.description import checked_text, model_name
    from volseg.model.checkpoint import check_changes, load_model, reconfigured
    from volseg.model.devices import choose_device
    from volseg.model.files import model_files
    from volseg.model.stored import StoredModel
    from volseg.parallel import use_threads
    from volseg.prediction.predictor import check_ensemble

    use_threads(threads)
    chosen = choose_device(device)
    called = None if name is None else checked_text(name, "the name of the model")
    given = PartialConfig.stated(config, changes, allow_gaps)
    check_changes(given)
    paths = [model] if isinstance(model, str | PathLike) else model
    folders = [Path(path) for path in paths]
    files = [file for path in folders for file in model_files(path)]
    loaded = [load_model(file, chosen) for file in files]
    networks = [reconfigured(network, given) for network in loaded]
    check_ensemble(networks)
    changed = differences(loaded[0].config, networks[0].config)
    stored = StoredModel(tuple(files), given, None if device is None else str(device))
    return Model(tuple(networks), tuple(files), called or model_name(folders), tuple(changed), stored)
