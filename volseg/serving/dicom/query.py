"""Asking an archive what a study consists of, and for the study: C-FIND and C-MOVE (PS3.4 annex C), QIDO-RS."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from pydicom.dataset import Dataset
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when the module is loaded
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from volseg.errors import DeliveryError
from volseg.serving.config import DestinationConfig, node_of
from volseg.serving.dicom import web
from volseg.serving.dicom.sender import associate

#: Statuses of C-FIND and C-MOVE (PS3.4 sections C.4.1.1.4 and C.4.2.1.5).
_PENDING, _SUCCESS = frozenset({0xFF00, 0xFF01}), 0x0000
_SERIES_UID, _COUNT = "0020000E", "00201209"


def series_counts(archive: DestinationConfig, study_uid: str, ae_title: str) -> dict[str, int]:
    """Ask how many objects each series of a study has.

    Args:
        archive: A DICOM node, or a DICOMweb service.
        study_uid: StudyInstanceUID.
        ae_title: What this side is called.

    Returns:
        SeriesInstanceUID -> NumberOfSeriesRelatedInstances; series of which the archive does not say it are left out.

    Raises:
        DeliveryError: If it cannot be reached, or refuses.
    """
    if archive.is_web:
        found = web.search(archive, f"studies/{quote(study_uid, safe='')}/series", includefield=_COUNT)
        counts = {each[_SERIES_UID]["Value"][0]: each.get(_COUNT, {}).get("Value", [0])[0] for each in found}
    else:
        found_by_dimse = _find(archive, _query(study_uid), ae_title)
        counts = {each.SeriesInstanceUID: each.get("NumberOfSeriesRelatedInstances") for each in found_by_dimse}
    return {str(uid): int(count) for uid, count in counts.items() if count}


def move_study(archive: DestinationConfig, study_uid: str, ae_title: str) -> None:
    """Have a DICOM node send a study to this one, which it has to know by its AE title.

    Raises:
        DeliveryError: If it cannot be reached, refuses, or could not send everything.
    """
    node = node_of(archive.to)
    wanted = Dataset()
    wanted.QueryRetrieveLevel = "STUDY"
    wanted.StudyInstanceUID = study_uid
    association = associate(node, [build_context(StudyRootQueryRetrieveInformationModelMove)], archive.tls, ae_title)
    try:
        status = None
        for answer, _ in association.send_c_move(wanted, ae_title, StudyRootQueryRetrieveInformationModelMove):
            status = answer.get("Status")
    finally:
        if association.is_established:
            association.release()
    if status != _SUCCESS:
        told = "does not answer" if status is None else f"answers {status:04X}"
        raise DeliveryError(f"{node.ae_title} {told}", hint=f"make {ae_title} known there, with its address and port")


def _query(study_uid: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID = study_uid
    query.SeriesInstanceUID = ""
    query.NumberOfSeriesRelatedInstances = None
    return query


def _find(archive: DestinationConfig, query: Dataset, ae_title: str) -> Iterator[Dataset]:
    node = node_of(archive.to)
    context = build_context(StudyRootQueryRetrieveInformationModelFind)
    association = associate(node, [context], archive.tls, ae_title)
    try:
        for answer, found in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
            status = answer.get("Status")
            if status in _PENDING and found is not None:
                yield found
            elif status != _SUCCESS:
                told = "does not answer" if status is None else f"answers {status:04X}"
                raise DeliveryError(f"{node.ae_title} {told} to a query", hint="may it be asked?")
    finally:
        if association.is_established:
            association.release()
