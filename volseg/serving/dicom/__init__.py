"""The DICOM node: what it receives, and what it sends."""
