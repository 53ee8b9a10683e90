"""Text for a paper about a run: methods, references and a table of scores."""

from volseg.citing.cite import Citation, cite

__all__ = ["Citation", "cite"]
