"""Import of other programs' models as runs; they are read as data, and nothing in them is executed."""

from volseg.importing.folder import import_model

__all__ = ["import_model"]
