"""Images."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response

from volseg.io.images import image_suffix
from volseg.serving.images import Image, file_name, image_file, keep_image, list_images
from volseg.serving.store import Store
from volseg.serving.store.annotations import FINAL, Annotation, list_annotations
from volseg.serving.store.audit import note
from volseg.serving.store.cases import remove_case
from volseg.serving.store.users import Role
from volseg.serving.uploads import Upload, base_name
from volseg.serving.views import remove_views
from volseg.serving.web.monai_label.parts import (
    ClientAdmin,
    ClientReviewer,
    ClientViewer,
    client_user,
    json_in,
    known_image,
)
from volseg.serving.web.parts import ConfigOf, StoreOf, access_of, check_room, uploads_in

router = APIRouter(prefix="/datastore", tags=["MONAI Label"])


class Output(StrEnum):
    """How much of the images and masks is told."""

    STATS = "stats"
    ALL = "all"
    TRAIN = "train"


@router.get("/")
def show_datastore(_: ClientViewer, store: StoreOf, output: Output = Output.STATS) -> Any:
    """Return how many images there are, or all of them with their masks, or those that a model can learn from."""
    if output is Output.STATS:
        return statistics(store)
    images, masks = list_images(store), _masks(store)
    if output is Output.TRAIN:
        return [{"image": each.name, "label": each.name} for each in images if FINAL in masks.get(_key(each), {})]
    return {
        "name": "volseg",
        "description": "",
        "objects": {
            each.name: {
                "image": {"ext": _extension(store, each), "info": image_info(each)},
                "labels": {
                    tag: {"ext": ".nii.gz", "info": annotation_info(mask)}
                    for tag, mask in masks.get(_key(each), {}).items()
                },
            }
            for each in images
        },
    }


@router.put("/image", responses={400: {}, 507: {}})
@router.put("/", responses={400: {}, 507: {}})
async def upload_image(
    request: Request, user: ClientReviewer, store: StoreOf, config: ConfigOf, image: str = ""
) -> dict[str, str]:
    """Keep an image under a name: any text; by default that of its file."""
    check_room(request, store, config)
    async with request.form() as form:
        json_in(form, "params")
        files = uploads_in(form, "file")
        if len(files) != 1:
            raise HTTPException(400, "send the image as `file`")
        stated = base_name(files[0].name)
        name = image or stated[: len(stated) - len(image_suffix(Path(stated)))]
        await run_in_threadpool(_keep, store, name, files, user.user)
    return {"image": name}


@router.delete("/image", responses={400: {}, 404: {}})
@router.delete("/", responses={400: {}, 404: {}})
def delete_image(id: str, user: ClientAdmin, store: StoreOf) -> dict[str, str]:  # noqa: A002  as clients call it
    """Remove an image with its masks."""
    image = known_image(store, id)
    if image.series_uid:
        raise HTTPException(400, "this is one series of a study; remove the study in the work list")
    remove_case(store, image.case_id)
    remove_views(store, image.case_id)
    note(store, user.user, "removed", image.case_id)
    return {}


@router.get("/image", responses={401: {}, 404: {}}, response_class=FileResponse)
def show_image(image: str, request: Request, store: StoreOf) -> FileResponse:
    """Return an image. 3D Slicer fetches the one that it was just told of, and sends no token with that."""
    granted = access_of(request).is_granted(request, image)
    who = "" if granted else client_user(request, Role.VIEWER).user
    known = known_image(store, image)
    file = image_file(store, known)
    note(store, who or "somebody who was told of it", "downloaded", known.case_id)
    return FileResponse(file, media_type="application/octet-stream", filename=file_name(known, file))


@router.head("/image", responses={401: {}, 404: {}}, response_class=Response)
def check_image(image: str, _: ClientViewer, store: StoreOf, check_sum: str = "") -> Response:
    """Return whether there is an image, and perhaps of which content."""
    known = known_image(store, image)
    if check_sum and check_sum.rpartition(":")[2] != checksum(store, known).rpartition(":")[2]:
        raise HTTPException(404, "the image is another one")
    return Response()


@router.get("/image/info", responses={404: {}})
def show_image_info(image: str, _: ClientViewer, store: StoreOf) -> dict[str, str]:
    """Return what is known of an image."""
    return image_info(known_image(store, image))


def statistics(store: Store) -> dict[str, Any]:
    """Return how many images there are, and how many of them somebody has finished."""
    images, masks = list_images(store), _masks(store)
    tags = [tag for each in images for tag in masks.get(_key(each), {})]
    return {
        "total": len(images),
        "completed": sum(FINAL in masks.get(_key(each), {}) for each in images),
        "label_tags": {tag: tags.count(tag) for tag in dict.fromkeys(tags)},
    }


def image_info(image: Image) -> dict[str, str]:
    """Return what clients are told of an image: nothing of the patient, and no path of this machine."""
    told = {
        "SeriesInstanceUID": image.series_uid,
        "StudyInstanceUID": image.study_uid,
        "Modality": image.modality,
    }
    return {name: value for name, value in told.items() if value}


def annotation_info(annotation: Annotation) -> dict[str, Any]:
    """Return what clients are told of a mask: its labels, in the order of the values that it is downloaded with."""
    names = {label.name: number for number, label in enumerate(annotation.labels, 1)}
    return {
        **annotation.info,
        "label_info": [{"name": name, "idx": number} for name, number in names.items()],
        "params": {"label_names": names},
        "user": annotation.user,
        "ts": int(annotation.created),
    }


def checksum(store: Store, image: Image) -> str:
    """Return what 3D Slicer checks a download by."""
    with image_file(store, image).open("rb") as file:
        return f"SHA256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _keep(store: Store, name: str, files: list[Upload], user: str) -> None:
    note(store, user, "uploaded", keep_image(store, name, files).case_id)


def _masks(store: Store) -> dict[tuple[str, str], dict[str, Annotation]]:
    masks = dict[tuple[str, str], dict[str, Annotation]]()
    for annotation in list_annotations(store):
        masks.setdefault((annotation.case_id, annotation.series_uid), {})[annotation.tag] = annotation
    return masks


def _key(image: Image) -> tuple[str, str]:
    return image.case_id, image.series_uid


def _extension(store: Store, image: Image) -> str:
    files = [] if image.series_uid else list(store.case_folder(image.case_id).iterdir())
    return "".join(files[0].suffixes) if len(files) == 1 else ".nii.gz"
