"""The version, on the lowest layer, so that everything above can state it."""

__version__ = "0.1.0"
