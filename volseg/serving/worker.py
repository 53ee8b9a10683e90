"""The worker: it has the models loaded, and does one job after the other."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np

from volseg.errors import DataError, GeometryError, MemoryShortageError, OutputError, VolsegError
from volseg.exporting import OF_DICOM, output_path, parse_formats, with_needed
from volseg.image.volume import Label
from volseg.io import SeriesSource, write_probabilities
from volseg.loaded_model import Model, load
from volseg.prediction.cases_csv import probability_file
from volseg.prediction.defects import reason_of_defect
from volseg.progress import Cancelled, Progress
from volseg.reporting.picture import display_color
from volseg.results import Prediction
from volseg.serving.config import ServerConfig
from volseg.serving.dicom.objects import read_tags
from volseg.serving.processes import Ready
from volseg.serving.store import Store
from volseg.serving.store.audit import note
from volseg.serving.store.cases import link_images
from volseg.serving.store.jobs import (
    Job,
    Result,
    claim_job,
    fail_job,
    finish_job,
    note_progress,
    postpone_job,
    take_back,
)
from volseg.serving.store.models import note_model
from volseg.serving.store.trainings import served_path

#: How often the queue is looked at, and how often progress is noted.
_EVERY_SECONDS = 0.2
#: How long to wait for space on the disk.
_DISK_SECONDS = 60.0

logger = logging.getLogger(__name__)


#: Formats that the web page shows: the mask for its viewer, and a small picture.
_SHOWN = ("nifti", "overlay")
#: What the probabilities of the labels are called among the formats of results.
PROBABILITIES = "probabilities"

logger = logging.getLogger(__name__)


class IncompleteError(DataError):
    """A series seems to lack slices, which may still arrive."""


class Worker:
    """Does the jobs of a store; there is one worker at a time.

    Args:
        store: The store.
        config: The models, and what is done with the masks.
        stop: Ends the work, at the next window of a running job, which goes back into the queue.
    """

    def __init__(self, store: Store, config: ServerConfig, stop: Event) -> None:
        self._store, self._config, self._stop = store, config, stop
        self._room = store.work / "worker"
        self._models: dict[str, Model] = {}
        self._paths: dict[str, Path] = {}

    def run(self, ready: Ready) -> None:
        """Work until `stop` is set.

        Raises:
            CheckpointError: If a model cannot be loaded.
        """
        take_back(self._store)
        shutil.rmtree(self._room, ignore_errors=True)  # of a worker that was killed
        for name in self._config.models:
            self._model(name)
        ready(f"models: {', '.join(self._models)}")
        while not self._stop.is_set():
            job = claim_job(self._store)
            if job is None:
                self._stop.wait(_EVERY_SECONDS)
            else:
                self.work(job)

    def work(self, job: Job) -> None:
        """Do a job, and note what came of it."""
        room, folder = self._room / job.id, self._store.job_folder(job.id)
        try:
            shutil.rmtree(room, ignore_errors=True)
            (room / "results").mkdir(parents=True)
            link_images(self._store, job.case_id, room / "images", self._only_series(job))
            results = self._segment(job, room / "images", room / "results")
            shutil.rmtree(folder, ignore_errors=True)
            (room / "results").rename(folder)
            if finish_job(self._store, job, results):
                note(self._store, "volseg", "segmented", job.case_id, job.model)
            else:  # it was cancelled at the last moment
                shutil.rmtree(folder, ignore_errors=True)
        except Cancelled:
            postpone_job(self._store, job, 0.0, "")
        except FileNotFoundError:  # images were replaced while they were linked
            postpone_job(self._store, job, 1.0, "its images are changing")
        except IncompleteError as error:
            postpone_job(self._store, job, self._config.dicom.quiet_seconds, f"waits for slices: {error}")
        except (OSError, OutputError) as error:
            logger.warning("job %s waits: its results cannot be written: %s", job.id, error)
            postpone_job(self._store, job, _DISK_SECONDS, f"its results cannot be written: {error}")
        except VolsegError as error:
            images = str(room / "images")
            fail_job(self._store, job, error.explanation.replace(images + os.sep, "").replace(images, "the upload"))
        except Exception as error:  # noqa: BLE001  a defect met in one job must not cost the others; it is kept in full
            reason = reason_of_defect(error, f"job {job.id}", self._store.folder, str)
            logger.error("job %s: %s", job.id, reason)  # noqa: TRY400  the traceback may name the patient
            fail_job(self._store, job, reason)
        finally:
            shutil.rmtree(room, ignore_errors=True)

    def _segment(self, job: Job, images: Path, folder: Path) -> list[Result]:
        """Segment every volume of a case that the model is for; a series that fails does not cost the others."""
        model = self._model(job.model)
        dataset = model.find_cases(images, "hash")
        faults = [item.reason for item in dataset.set_aside if item.is_fault]
        self._wait_for_slices(job, faults)
        results, failures = list[Result](), list[str]()
        for number, case in enumerate(dataset.cases):
            progress = self._progress_of(job, number, len(dataset.cases))
            try:
                prediction = model.predict(case, probabilities=job.probabilities, progress=progress)
            except GeometryError as error:
                self._wait_for_slices(job, [error.explanation])
                failures.append(error.explanation)
            except MemoryShortageError:
                raise
            except DataError as error:
                failures.append(error.explanation)
            else:
                results += self._save(job, prediction, folder, case.case_id)
        if not results:
            reasons = [*failures, *faults, *(item.reason for item in dataset.set_aside)]
            reason = "; ".join(dict.fromkeys(reasons)) or "it holds no image that the model segments"
            raise DataError(reason, hint="" if reasons else "choose another model")
        return results

    def _save(self, job: Job, prediction: Prediction, folder: Path, case_id: str) -> list[Result]:
        """Write a mask in every format that was asked for, and in those that the web page shows."""
        image, mask = prediction.image, prediction.mask
        formats = with_needed(parse_formats([*job.formats, *_SHOWN]))
        files = [
            (form, prediction.save(path, format=form, series_description=job.series_description)[-1])
            for form in formats
            for path in [output_path(folder, case_id, form)]
        ]
        written: list[tuple[str, Path]] = [*files]
        uncertainty = None
        if job.probabilities:
            shares = probability_file(folder, case_id)
            write_probabilities(np.rint(prediction.probabilities * 255).astype(np.uint8), mask.geometry, shares, image)
            written.append((PROBABILITIES, shares))
            uncertainty = _uncertainty(prediction)
        shown = Result(
            image.series_uid if isinstance(image, SeriesSource) else "",
            labels=json.dumps([_told(label, prediction) for label in mask.labels]),
            remark="; ".join(prediction.review()),
            seconds=prediction.seconds,
            uncertainty=uncertainty,
        )
        return [
            replace(
                shown,
                format=form,
                file=path.relative_to(folder).as_posix(),
                uid=read_tags(path, ["SOPInstanceUID"])["SOPInstanceUID"] if form in OF_DICOM else "",
                destinations=tuple(
                    name for name in job.destinations if form in self._config.destinations[name].formats
                ),
            )
            for form, path in written
        ]

    def _wait_for_slices(self, job: Job, faults: list[str]) -> None:
        """Wait if something is wrong that another slice may put right, unless nothing has arrived for too long."""
        case = self._store.row("SELECT changed, origin FROM cases WHERE id = ?", job.case_id)
        somebody_waits = bool(job.series_uid)
        if case is None or case["origin"] != "dicom" or not faults or somebody_waits:
            return
        if time.time() < case["changed"] + self._config.dicom.wait_seconds:
            raise IncompleteError("; ".join(faults))

    def _progress_of(self, job: Job, number: int, count: int) -> Progress:
        """Return a callback that notes how far a job is, and stops it if somebody has cancelled it."""
        noted = 0.0

        def progress(stage: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
            nonlocal noted
            if self._stop.is_set():
                raise Cancelled
            if (now := time.monotonic()) - noted > _EVERY_SECONDS:
                noted = now
                if not note_progress(self._store, job, (number + done / max(total, 1)) / count):
                    raise Cancelled

        return progress

    def _only_series(self, job: Job) -> str:
        """Return the only series that a job needs; a model of several channels needs the others, too."""
        return job.series_uid if len(self._model(job.model).channels) == 1 else ""

    def _model(self, name: str) -> Model:
        """Return a model, of which there may be a better one by now."""
        path = served_path(self._store, name, self._config.models[name])
        if self._paths.get(name) != path:
            self._models[name] = load(path, device=self._config.device, name=name)
            self._paths[name] = path
            note_model(self._store, name, self._models[name].labels)
        return self._models[name]


def _told(label: Label, prediction: Prediction) -> dict[str, object]:
    volume_ml = float(f"{prediction.volumes_ml[label.name]:.6g}")
    return {"value": label.value, "name": label.name, "color": display_color(label), "volume_ml": volume_ml}


def _uncertainty(prediction: Prediction) -> float:
    """Return 1 less the mean probability of what was drawn; 1 if nothing was."""
    drawn = prediction.array > 0
    return 1.0 - float(prediction.probabilities.max(axis=-1)[drawn].mean()) if drawn.any() else 1.0


def run_worker(config: ServerConfig, store: Store, stop: Event, ready: Ready) -> None:
    """Do jobs until `stop` is set."""
    Worker(store, config, stop).run(ready)
