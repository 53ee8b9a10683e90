"""What a folder holds, and what training or prediction would make of it."""

from volseg.inspection.folder import Inspection, inspect_folder
from volseg.inspection.items import InspectedItem
from volseg.inspection.readiness import CaseReadiness, Readiness

__all__ = ["CaseReadiness", "InspectedItem", "Inspection", "Readiness", "inspect_folder"]
