"""Inspection: the contents of a folder, and how training or prediction would use each part."""

from volseg.inspection.folder import Inspection, inspect_folder
from volseg.inspection.items import InspectedItem
from volseg.inspection.readiness import CaseReadiness, Readiness

__all__ = ["CaseReadiness", "InspectedItem", "Inspection", "Readiness", "inspect_folder"]
