"""Import a folder with another program's model as a run of volseg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from volseg.about import made_now, write_about
from volseg.config import dump
from volseg.errors import CheckpointError
from volseg.importing.bundle.content import is_bundle, read_bundle
from volseg.importing.bundle.convert import convert_bundle
from volseg.importing.nnunet.folder import read_folds
from volseg.importing.totalsegmentator.convert import read_task, whole
from volseg.io.files import write_text
from volseg.io.written import Inputs, claim
from volseg.model.checkpoint import TrainedNetwork, save
from volseg.model.files import COARSE_FOLDER, FOLD_FOLDER, MODEL_FILE, PARTS_FOLDER, PREVIOUS_FOLDER


def import_model(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    axes: str | None = None,
    folds: Sequence[str] = (),
    previous: str | PathLike[str] | None = None,
    paint: Sequence[str] = (),
    task: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Import a model of nnU-Net v2 or TotalSegmentator, or a MONAI bundle, as a run of volseg.

    It gives the same masks.

    Nothing in it is executed.

    Args:
        source: The folder that holds plans.json, dataset.json and fold_*/checkpoint_final.pth of nnU-Net; or the folder
            of a bundle, with configs/metadata.json; or, with `task`, the folder of TotalSegmentator's weights.
        output: The run folder.
        axes: Directions of the axes that the network was trained on, such as "RAS" or "LPS"; "stored" means as files
            store them. By default those of the model: as stored, unless it reorients images.
        folds: Folds to import, such as "0" or "all"; by default every fold there is.
        previous: For a cascade, the folder of the previous networks; by default the one beside `source`.
        paint: For a bundle whose outputs may overlap, their names in the order in which they are painted.
        task: Of TotalSegmentator: "total", "total_fast", "lung_vessels" ...
        overwrite: Whether to replace files there that volseg did not write.

    Returns:
        The run folder, which `volseg.load` accepts.

    Raises:
        CheckpointError: If there is no such model, or anything in it is not supported.
        OutputError: If the run cannot be written.
    """
    folder, run = Path(source), Path(output)
    if task is not None:
        return _import_task(folder, task, run, overwrite=overwrite)
    earlier: dict[str, TrainedNetwork] = {}
    if is_bundle(folder):
        if folds or previous is not None:
            raise CheckpointError(
                f"{folder} is a MONAI bundle, which has neither folds nor previous networks",
                hint="leave out --fold and --previous",
            )
        bundle = read_bundle(folder)
        models, origin = {"": convert_bundle(bundle, axes or "", paint)}, f"MONAI bundle, {bundle.name}"
    else:
        models, earlier = read_folds(folder, axes or "", folds, Path(previous) if previous is not None else None)
        origin = f"nnU-Net v2, folds {', '.join(models)}"
    places = _places(models, run) | _places(earlier, run / PREVIOUS_FOLDER)
    config_file = run / "config.yaml"
    claim([*places, config_file], Inputs.of(folder), overwrite=overwrite)
    for place, model in places.items():
        save(place, {"weights": dict(model.weights), "config": dump(model.config)})
    write_text(config_file, dump(_first(models).config))
    write_about(made_now((("imported from", origin),)), run)
    return run


def _import_task(folder: Path, name: str, run: Path, *, overwrite: bool) -> Path:
    """Write a run made of parts: their networks are in its folders, its own file describes how they are combined."""
    models, config_file = read_task(folder, name), run / "config.yaml"
    config = whole(models)
    places = [_places(folds, run / PARTS_FOLDER / str(n)) for n, folds in enumerate(models.parts)]
    places += [_places(models.coarse, run / COARSE_FOLDER)] if models.coarse else []
    claim(
        [*(file for each in places for file in each), run / MODEL_FILE, config_file],
        Inputs.of(folder),
        overwrite=overwrite,
    )
    for file, model in (pair for each in places for pair in each.items()):
        save(file, {"weights": dict(model.weights), "config": dump(model.config)})
    around = {"labels": list(models.inside), "margin_mm": models.task.margin_mm}
    content = {"weights": {}, "config": dump(config), "parts": len(models.parts)}
    save(run / MODEL_FILE, content | ({"around": around} if models.coarse else {}))
    write_text(config_file, dump(config))
    facts = (("imported from", f"TotalSegmentator, task {name}"), ("licence", models.task.licence))
    write_about(made_now(facts), run)
    return run


def _first(models: Mapping[str, TrainedNetwork]) -> TrainedNetwork:
    return next(iter(models.values()))


def _places(models: Mapping[str, TrainedNetwork], run: Path) -> dict[Path, TrainedNetwork]:
    """Return the file of each fold in a run."""
    if len(models) == 1:
        return {run / MODEL_FILE: _first(models)}
    return {run / f"{FOLD_FOLDER}{n}" / MODEL_FILE: model for n, model in enumerate(models.values())}
