"""Pictures of cases, stored beside the tables of a folder of results."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from volseg.errors import DataError
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask, Volume
from volseg.io import Source, read_shown
from volseg.io.files import file_name, make_folder, write_text
from volseg.io.json_files import read_json
from volseg.io.written import is_result, remove_written, remove_written_in
from volseg.parallel import side_by_side
from volseg.progress import Progress, ignore_progress
from volseg.reporting.page import REPORT_FILE
from volseg.reporting.picture import Detail, DrawnLabel, Picture, Surface, display_color, draw

PICTURES_FOLDER = "pictures"
#: The cases that need it most are drawn, so that a page of many cases still fits into a mail.
_MOST_PICTURES, _MOST_BYTES = 60, 11_000_000
#: What all pictures of a page share, and what one has at most: the fewer there are, the finer each.
_ALL_VOXELS, _MOST_VOXELS = 60_000_000, 6_000_000
_ALL_FACES, _MOST_FACES = 250_000, 25_000
_ALL_IMAGE_BYTES, _MOST_IMAGE_BYTES = 4_000_000, 1_000_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CaseView:
    """A case to draw.

    Attributes:
        reference: What is held to be right, if anything is.
        prediction: What a model made of the case, if it did.
        image: What it was made from, if that is known.
    """

    reference: Mask | None
    prediction: Mask | None
    image: Volume | None


def draw_cases(
    view_of: Callable[[str], CaseView], case_ids: Sequence[str], folder: Path, progress: Progress = ignore_progress
) -> None:
    """Draw cases and store their pictures, as many as fit into an e-mail.

    Args:
        view_of: Reads what there is of a case. A case that cannot be read or drawn is logged and left out.
        case_ids: Those that need it most first.
        folder: Of the results.
        progress: Called after each case.

    Raises:
        OutputError: If a picture cannot be written.
    """
    chosen, size = case_ids[:_MOST_PICTURES], 0
    detail = _detail(len(chosen))
    pictures = side_by_side(lambda case_id: _drawn(view_of, case_id, detail), chosen)
    for done, (case_id, text) in enumerate(zip(chosen, pictures, strict=True), start=1):
        size += len(text)
        if size > _MOST_BYTES:
            return
        if text:
            make_folder(folder / PICTURES_FOLDER)
            write_text(_file(folder, case_id), text)
        progress("draw", done, len(chosen), case_id)


def _detail(cases: int) -> Detail:
    """Return the level of detail for each of this many cases."""
    shared = max(1, cases)
    return Detail(
        voxels=min(_MOST_VOXELS, _ALL_VOXELS // shared),
        faces=min(_MOST_FACES, _ALL_FACES // shared),
        image_bytes=min(_MOST_IMAGE_BYTES, _ALL_IMAGE_BYTES // shared),
    )


def _drawn(view_of: Callable[[str], CaseView], case_id: str, detail: Detail) -> str:
    """Draw a case as JSON; if that fails, log a warning and return None."""
    try:
        view = view_of(case_id)
        picture = draw(view.reference, view.prediction, view.image, detail)
    except DataError as error:
        logger.warning("not drawn: %s: %s", case_id, error)
        return ""
    return json.dumps(asdict(picture), separators=(",", ":"))


def image_on(
    grid: Geometry, source: Source | None, case_id: str, tellable: Callable[[str], str] = str
) -> Volume | None:
    """Read the image of a mask; None, with a warning, if it cannot be read or has another grid.

    Args:
        grid: Of the mask.
        source: Where the image is read from, if there is one.
        case_id: For the warning.
        tellable: Takes from a warning what it must not say.
    """
    if source is None:
        return None
    try:
        image = read_shown(source)
    except DataError as error:
        logger.warning("drawn without its image: %s: %s", case_id, tellable(str(error)))
        return None
    if not image.geometry.matches(grid):
        logger.warning("drawn without its image, which lies on another grid: %s", case_id)
        return None
    return image


def forget_report(folder: Path, *, is_replaced: bool) -> None:
    """Remove the page and the pictures of earlier results, which must not be mistaken for the current ones.

    Args:
        folder: Of the results.
        is_replaced: Whether a new page is going to be written; otherwise a warning says that there is none any more.
    """
    if not is_replaced and (folder / REPORT_FILE).exists():
        logger.warning("%s of earlier results is removed; --report writes a new one", folder / REPORT_FILE)
    remove_written(folder / REPORT_FILE)
    remove_written_in(folder / PICTURES_FOLDER, "*.json")


def report_files(folder: Path, case_ids: Sequence[str]) -> list[Path]:
    """Return the paths of the page of a folder of results and of its pictures."""
    return [folder / REPORT_FILE, *(_file(folder, case_id) for case_id in case_ids)]


def kept_pictures(folder: Path, case_ids: Sequence[str]) -> dict[str, Picture]:
    """Return the stored pictures by case id.

    Raises:
        DataError: If one is damaged, or of an earlier version of volseg.
    """
    files = {case_id: _file(folder, case_id) for case_id in case_ids}
    what, hint = "is damaged, or no picture of this version", "evaluate or predict again with --report, or delete it"
    kept = {case_id: file for case_id, file in files.items() if file.is_file() and is_result(file)}
    return {case_id: read_json(file, _picture, what, hint) for case_id, file in kept.items()}


def colors_of(labels: Sequence[Label], pictures: Mapping[str, Picture]) -> dict[str, str]:
    """Return label name -> colour: as drawn, otherwise as exported."""
    drawn = {label.name: label.color for picture in pictures.values() for label in picture.labels}
    return {label.name: drawn.get(label.name) or display_color(label) for label in labels}


def _file(folder: Path, case_id: str) -> Path:
    return folder / PICTURES_FOLDER / file_name(f"{case_id}.json")


def _picture(tree: Mapping[str, Any]) -> Picture:
    labels = tuple(DrawnLabel(**{**label, "position": tuple(label["position"])}) for label in tree["labels"])
    surfaces = tuple(Surface(**surface) for surface in tree["surfaces"])
    triples = {name: tuple(tree[name]) for name in ("shape", "voxel_mm", "first", "size", "position")}
    return Picture(**{**tree, **triples, "labels": labels, "surfaces": surfaces})
