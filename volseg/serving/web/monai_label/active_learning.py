"""Which image somebody should draw on next."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import APIRouter, HTTPException, Request

from volseg.serving.config import ServerConfig
from volseg.serving.images import Image, file_name, image_file, list_images
from volseg.serving.store import Store
from volseg.serving.store.annotations import FINAL, find_annotation
from volseg.serving.store.audit import note
from volseg.serving.store.jobs import Job, add_job
from volseg.serving.web.monai_label.datastore import checksum, image_info
from volseg.serving.web.monai_label.parts import ClientReviewer
from volseg.serving.web.parts import ConfigOf, StoreOf, access_of

router = APIRouter(prefix="/activelearning", tags=["MONAI Label"])

STRATEGIES = {
    "random": "Any image that nobody has finished",
    "uncertainty": "The image whose mask the model is least certain of; those it has not seen are segmented meanwhile",
}
#: After everything that somebody waits for.
_PRIORITY = -50


@router.post("/{strategy}", responses={404: {}})
def next_image(
    strategy: str, request: Request, user: ClientReviewer, store: StoreOf, config: ConfigOf
) -> dict[str, Any]:
    """Return an image that nobody has finished; nothing if there is none left."""
    if strategy not in STRATEGIES:
        raise HTTPException(404, f"there is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
    left = [
        image for image in list_images(store) if find_annotation(store, image.case_id, image.series_uid, FINAL) is None
    ]
    if not left:
        return {}
    image = _least_certain(store, config, left) if strategy == "uncertainty" else secrets.choice(left)
    # 3D Slicer loads the file by the suffix of `name`, and fetches it without a token.
    access_of(request).grant(request, image.name)
    note(store, user.user, f"was told to draw on ({strategy})", image.case_id)
    name = file_name(image, image_file(store, image))
    return {"id": image.name, "name": name, "checksum": checksum(store, image), **image_info(image)}


def _least_certain(store: Store, config: ServerConfig, images: list[Image]) -> Image:
    """Return the image with the least certain mask; any if none is known yet."""
    known = {image: uncertainty for image in images if (uncertainty := _uncertainty(store, image)) is not None}
    for image in images:
        if image not in known:
            _have_segmented(store, next(iter(config.models)), image)
    return max(known, key=known.__getitem__) if known else secrets.choice(images)


def _uncertainty(store: Store, image: Image) -> float | None:
    """Return how uncertain the latest mask of an image is; None if that is not known."""
    row = store.row(
        "SELECT uncertainty FROM results JOIN jobs ON jobs.id = job_id WHERE case_id = ? AND case_name IN (?, '')"
        " AND uncertainty IS NOT NULL ORDER BY ended DESC LIMIT 1",
        *(image.case_id, image.series_uid),
    )
    return None if row is None else float(row["uncertainty"])


def _have_segmented(store: Store, model: str, image: Image) -> None:
    """Have an image segmented with probabilities, unless that has been asked for."""
    asked = store.row(
        "SELECT 1 FROM jobs WHERE case_id = ? AND series_uid = ? AND probabilities", image.case_id, image.series_uid
    )
    if asked is None:
        job = Job(image.case_id, model, ("nifti",), series_uid=image.series_uid, probabilities=True, priority=_PRIORITY)
        add_job(store, job)
