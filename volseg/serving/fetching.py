"""Fetching a study from an archive: by C-MOVE to this node, or by WADO-RS."""

from __future__ import annotations

from io import BytesIO
from urllib.parse import quote

from volseg.errors import ConfigError
from volseg.serving.config import ServerConfig
from volseg.serving.dicom import web
from volseg.serving.dicom.keeping import keep_object
from volseg.serving.dicom.objects import read_place
from volseg.serving.dicom.query import move_study
from volseg.serving.store import Store

_SERIES_UID = "0020000E"


def fetch_study(store: Store, config: ServerConfig, name: str, study_uid: str) -> int:
    """Have a study sent here; the rules apply to it as to any other that arrives.

    Args:
        store: The store.
        config: Of the server.
        name: Of the destination that has it.
        study_uid: StudyInstanceUID.

    Returns:
        The number of objects that were not here before; 0 if a DICOM node sends them, which are counted as they arrive.

    Raises:
        ConfigError: If a DICOM node is to send it, and there is none here.
        DeliveryError: If the archive cannot be reached, or does not have it.
        DataError: If an object cannot be read.
    """
    archive = config.destinations[name]
    if not archive.is_web:
        if not config.dicom.port:
            raise ConfigError(f"{name} would send it to the DICOM node, which is off", hint="state dicom.port")
        move_study(archive, study_uid, config.dicom.ae_title)
        return 0
    added = 0
    for series in web.search(archive, f"studies/{quote(study_uid, safe='')}/series"):
        for content in web.retrieve_series(archive, study_uid, str(series[_SERIES_UID]["Value"][0])):
            added += _keep(store, name, content)
    return added


def _keep(store: Store, name: str, content: bytes) -> bool:
    place = read_place(BytesIO(content))
    if not place.is_image:
        return False
    return keep_object(store, place, content, name)
