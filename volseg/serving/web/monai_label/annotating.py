"""Masks that people have drawn."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from starlette.background import BackgroundTask

from volseg.image.volume import Mask
from volseg.io import FileSource, read_mask, write_mask
from volseg.io.images import image_suffix
from volseg.io.itk_header import check_alone
from volseg.serving.images import Image, file_name, source_of
from volseg.serving.labelling import VOXELS_ONLY, numbered, read_drawn
from volseg.serving.store import Store
from volseg.serving.store.annotations import (
    FINAL,
    Annotation,
    add_annotation,
    annotation_file,
    change_info,
    find_annotation,
    remove_annotation,
)
from volseg.serving.store.audit import note
from volseg.serving.store.database import new_id
from volseg.serving.store.models import labels_of_model
from volseg.serving.uploads import Upload, base_name
from volseg.serving.web.monai_label.datastore import annotation_info
from volseg.serving.web.monai_label.parts import (
    ClientAdmin,
    ClientReviewer,
    ClientViewer,
    json_in,
    known_image,
    model_labels,
)
from volseg.serving.web.parts import ConfigOf, StoreOf, check_room, uploads_in

router = APIRouter(prefix="/datastore/label", tags=["MONAI Label"])


@router.put("", responses={400: {}, 404: {}, 507: {}})
async def save_label(
    request: Request, user: ClientReviewer, store: StoreOf, config: ConfigOf, image: str, tag: str = FINAL
) -> dict[str, str]:
    """Keep a mask that somebody has drawn on an image.

    Its values are positions in `params.label_info`: what 3D Slicer states there as `idx` counts segments that it leaves
    out of the mask.
    """
    check_room(request, store, config)
    known = known_image(store, image)
    async with request.form() as form:
        params, files = json_in(form, "params"), uploads_in(form, "label")
        if len(files) != 1:
            raise HTTPException(400, "send the mask as `label`")
        stated = str(params.get("model"))
        model = stated if stated in config.models else next(iter(config.models))
        names = _names(params) or model_labels(store, model)
        mask = await run_in_threadpool(_read, store, known, files[0], names, model)
    told = {"client_id": params.get("client_id")}
    annotation = Annotation(known.case_id, known.series_uid, tag or FINAL, mask.labels, user.user, told)
    await run_in_threadpool(_save, store, annotation, mask, known)
    return {"image": image, "label": image}


@router.get("", responses={404: {}}, response_class=FileResponse)
def download_label(label: str, tag: str, user: ClientViewer, store: StoreOf) -> FileResponse:
    """Return a mask as clients read one: its labels have the values 1, 2, 3 ... in their order."""
    image = known_image(store, label)
    annotation = _annotation(store, image, tag)
    path = annotation_file(store, annotation)
    room = store.work / f"{new_id()}.nii.gz"
    saved = read_mask(FileSource(path))
    write_mask(numbered(Mask(saved.array, saved.geometry, annotation.labels)), room)
    note(store, user.user, "downloaded", image.case_id, tag)
    return FileResponse(room, filename=file_name(image, room), background=BackgroundTask(room.unlink))


@router.head("", responses={404: {}}, response_class=Response)
def check_label(image: str, tag: str, _: ClientViewer, store: StoreOf) -> Response:
    """Return whether there is a mask."""
    _annotation(store, known_image(store, image), tag)
    return Response()


@router.delete("", responses={404: {}})
def delete_label(id: str, tag: str, user: ClientAdmin, store: StoreOf) -> dict[str, str]:  # noqa: A002  as clients call it
    """Remove a mask."""
    image = known_image(store, id)
    remove_annotation(store, _annotation(store, image, tag))
    note(store, user.user, "removed a mask of", image.case_id, tag)
    return {}


@router.get("/info", responses={404: {}})
def show_label_info(label: str, tag: str, _: ClientViewer, store: StoreOf) -> dict[str, Any]:
    """Return what is known of a mask."""
    return annotation_info(_annotation(store, known_image(store, label), tag))


@router.put("/info", responses={400: {}, 404: {}})
async def change_label_info(
    request: Request, _: ClientReviewer, store: StoreOf, label: str, tag: str
) -> dict[str, Any]:
    """Add to what is known of a mask."""
    async with request.form(max_files=0) as form:
        info = json_in(form, "info")
    known = known_image(store, label)
    await run_in_threadpool(change_info, store, _annotation(store, known, tag), info)
    return annotation_info(_annotation(store, known, tag))


def _annotation(store: Store, image: Image, tag: str) -> Annotation:
    annotation = find_annotation(store, image.case_id, image.series_uid, tag)
    if annotation is None:
        raise HTTPException(404, "there is no such mask")
    return annotation


def _names(params: Mapping[str, Any]) -> list[str]:
    """Return the names of the values from 1, as a client states them."""
    stated = params.get("label_info") or []
    if not isinstance(stated, list) or not all(isinstance(each, dict) and each.get("name") for each in stated):
        raise HTTPException(400, "label_info is a list of objects, each with a name")
    return [str(each["name"]) for each in stated]


def _read(store: Store, image: Image, upload: Upload, names: list[str], model: str) -> Mask:
    with _kept(store, upload) as file:
        return read_drawn(file, source_of(store, image), names, labels_of_model(store, model))


def _save(store: Store, annotation: Annotation, mask: Mask, image: Image) -> None:
    add_annotation(store, annotation, lambda path: write_mask(mask, path, source_of(store, image)))
    note(store, annotation.user, "saved a mask of", image.case_id, annotation.tag)


@contextmanager
def _kept(store: Store, upload: Upload) -> Iterator[Path]:
    """Keep a mask for a moment, under the suffix that says how it is read."""
    name = base_name(upload.name).lower()
    suffix = VOXELS_ONLY if name.endswith(VOXELS_ONLY) else image_suffix(Path(name))
    if not suffix:
        raise HTTPException(400, "send the mask as NIfTI or NRRD")
    with TemporaryDirectory(dir=store.work) as room:
        file = Path(room) / f"mask{'.seg.nrrd' if name.endswith('.seg.nrrd') else suffix}"
        with file.open("wb") as copy:
            shutil.copyfileobj(upload.file, copy)
        check_alone(file)
        yield file
