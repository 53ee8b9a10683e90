"""DICOM image series: find them among any files, read one as a volume, write one.

The flow is `scan` (headers -> series) -> `frames` (header -> one plane in the patient) -> `stack` (planes -> grid) ->
`series` (grid and pixels -> volume); `header`, `dataset` and `pixels` are the edge to pydicom.
"""

from volseg.io.dicom.instances import Instances
from volseg.io.dicom.scan import scan_dicom
from volseg.io.dicom.series import read_instances, read_series
from volseg.io.dicom.write import write_series
from volseg.io.signatures import is_dicom

__all__ = ["Instances", "is_dicom", "read_instances", "read_series", "scan_dicom", "write_series"]
