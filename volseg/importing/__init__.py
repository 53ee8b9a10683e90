"""Models of other programs -> runs of volseg: read as data, nothing in them is executed."""

from volseg.importing.folder import import_model

__all__ = ["import_model"]
