"""A run for a paper: methods, references, scores."""

from volseg.citing.cite import Citation, cite

__all__ = ["Citation", "cite"]
