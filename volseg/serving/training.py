"""The trainer: it fine-tunes models with the masks that people have finished, one after the other."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

from volseg.errors import DataError, VolsegError
from volseg.image.volume import Label, Mask
from volseg.io import FileSource, read_mask, write_mask
from volseg.io.images import image_suffix
from volseg.io.label_maps import named_mask
from volseg.io.labels import LABELS_FILE, read_labels, write_labels
from volseg.prediction.defects import reason_of_defect
from volseg.progress import Cancelled, Progress
from volseg.serving.config import ServerConfig
from volseg.serving.processes import Ready
from volseg.serving.store import Store
from volseg.serving.store.annotations import FINAL, Annotation, annotation_file, list_annotations
from volseg.serving.store.audit import note
from volseg.serving.store.cases import link_images
from volseg.serving.store.models import labels_of_model
from volseg.serving.store.trainings import (
    Training,
    claim_training,
    fail_training,
    finish_training,
    interrupt_training,
    is_running,
    note_epoch,
    served_path,
)

_EVERY_SECONDS = 0.5

logger = logging.getLogger(__name__)


def run_trainer(config: ServerConfig, store: Store, stop: Event, ready: Ready) -> None:
    """Train until `stop` is set."""
    for leftover in (store.folder / "runs").glob("*-data"):
        shutil.rmtree(leftover, ignore_errors=True)
    ready("")
    while not stop.is_set():
        training = claim_training(store)
        if training is None:
            stop.wait(_EVERY_SECONDS)
        else:
            work(store, config, training, stop)


def work(store: Store, config: ServerConfig, training: Training, stop: Event) -> None:
    """Do a training, and note what came of it; if `stop` is set, it is continued later."""
    run, data = store.run_folder(training.id), store.run_folder(f"{training.id}-data")
    try:
        shutil.rmtree(data, ignore_errors=True)
        make_dataset(store, training.model, data)
        _fine_tune(store, config, training, data, stop)
    except Cancelled:
        if stop.is_set():
            interrupt_training(store, training)
        else:
            shutil.rmtree(run, ignore_errors=True)
    except VolsegError as error:
        fail_training(store, training, error.explanation.replace(str(data), "").strip())
        shutil.rmtree(run, ignore_errors=True)
    except Exception as error:  # noqa: BLE001  a defect met in one training must not cost the others
        reason = reason_of_defect(error, f"training {training.id}", store.folder, str)
        logger.error("training %s: %s", training.id, reason)  # noqa: TRY400  the traceback may name the patient
        fail_training(store, training, reason)
        shutil.rmtree(run, ignore_errors=True)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def make_dataset(store: Store, model: str, folder: Path) -> None:
    """Make a data set of the masks that people have finished, and their images: images/ and labels/.

    Args:
        store: The store.
        model: Whose labels they get, as far as they have their names.
        folder: Where to.

    Raises:
        DataError: If there are none.
    """
    finished = [each for each in list_annotations(store) if each.tag == FINAL]
    if not finished:
        raise DataError("nobody has finished a mask", hint="save some first")
    (folder / "images").mkdir(parents=True)
    labels = labels_of_model(store, model)
    for annotation in finished:
        _put_image(store, annotation, folder / "images")
        saved = read_mask(FileSource(annotation_file(store, annotation)))
        mask = named_mask(Mask(saved.array, saved.geometry, annotation.labels), labels)
        write_mask(mask, folder / "labels" / f"{annotation.id}.nii.gz")
        labels = mask.labels
    write_labels(labels, folder / "labels" / LABELS_FILE)


def _put_image(store: Store, annotation: Annotation, folder: Path) -> None:
    """Put the image of an annotation into a folder: a file, or a folder with the slices of a series."""
    place = folder / annotation.id
    link_images(store, annotation.case_id, place, annotation.series_uid)
    files = list(place.iterdir())
    if len(files) == 1 and image_suffix(files[0]):
        files[0].rename(place.with_name(f"{annotation.id}{image_suffix(files[0])}"))
        place.rmdir()


def _fine_tune(store: Store, config: ServerConfig, training: Training, data: Path, stop: Event) -> None:
    """Train from the model that is served, and serve the result unless it is worse."""
    from volseg.api import train

    earlier = served_path(store, training.model, config.models[training.model])
    run = store.run_folder(training.id)
    made = train(
        data,
        run,
        epochs=training.epochs,
        start_from=earlier,
        resume=run.exists(),
        device=config.device,
        progress=_progress_of(store, training, stop),
        on_epoch_done=lambda row: _note(store, training, row),
    )
    held_out = [case_id for split in made.splits for case_id in split.val]
    before, after = (_mean_dice(path, config.device, training.model, data, held_out) for path in (earlier, run))
    is_served = after >= before
    remark = f"Dice {after:.4f} on {len(held_out)} cases that it has not learned from; before it was {before:.4f}"
    labels = made.config.data.output_labels if is_served else None
    finish_training(store, training, f"{remark}; {'served' if is_served else 'not served'}", after, serves=labels)
    note(store, "volseg", "trained", detail=f"{training.model}: {remark}")


def _mean_dice(path: Path, device: str | None, name: str, data: Path, case_ids: Sequence[str]) -> float:
    """Return the mean Dice of a model on some cases; 0 if no label occurs in them."""
    from volseg.api import evaluate
    from volseg.loaded_model import load

    model, labels = load(path, device=device, name=name), read_labels(data / "labels" / LABELS_FILE)
    scores = [_dice(evaluate(model.predict(_image(data, each)), _reference(data, each, labels))) for each in case_ids]
    known = [score for score in scores if not math.isnan(score)]
    return sum(known) / len(known) if known else 0.0


def _dice(evaluation: Any) -> float:
    return float(evaluation.summary["dice_mean"].iloc[-1])


def _image(data: Path, case_id: str) -> Path:
    (image,) = (data / "images").glob(f"{case_id}*")
    return image


def _reference(data: Path, case_id: str, labels: tuple[Label, ...]) -> Mask:
    return read_mask(FileSource(data / "labels" / f"{case_id}.nii.gz"), labels)


def _note(store: Store, training: Training, row: Mapping[str, Any]) -> None:
    dice = row.get("dice")
    known = isinstance(dice, int | float) and not math.isnan(dice)
    note_epoch(store, training, int(row["epoch"]), float(dice) if known else 0.0)  # type: ignore[arg-type]


def _progress_of(store: Store, training: Training, stop: Event) -> Progress:
    """Return a callback that ends a training which somebody has stopped."""
    looked = 0.0

    def progress(stage: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        nonlocal looked
        if stop.is_set():
            raise Cancelled
        if (now := time.monotonic()) - looked > _EVERY_SECONDS:
            looked = now
            if not is_running(store, training):
                raise Cancelled

    return progress
