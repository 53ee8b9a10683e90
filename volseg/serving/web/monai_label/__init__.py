"""The interface of MONAI Label, as 3D Slicer's extension and OHIF's panel use it.

Source of the calls: MONAI Label 0.8, monailabel/endpoints, and its clients. Clients read fields that nothing documents;
where that is why something is answered, a comment says so.
"""

from __future__ import annotations

from volseg.serving.web.monai_label import (
    active_learning,
    annotating,
    application,
    datastore,
    inference,
    sessions,
    training,
)

routers = tuple(
    part.router for part in (application, datastore, annotating, sessions, inference, active_learning, training)
)

__all__ = ["routers"]
