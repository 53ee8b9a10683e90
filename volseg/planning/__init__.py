"""Planning: from a data set, read once, and the machine to a complete configuration with reasons."""

from volseg.planning.fingerprint import CasePrint, Fingerprint, take_fingerprint
from volseg.planning.folder import plan_folder
from volseg.planning.laterality import lateral_pairs
from volseg.planning.machine import CPU, Machine, this_machine, with_gpu
from volseg.planning.plan import Plan
from volseg.planning.rules import make_plan
from volseg.planning.topology import check_patch
from volseg.planning.trials import warn_of_few_steps

__all__ = [
    "CPU",
    "CasePrint",
    "Fingerprint",
    "Machine",
    "Plan",
    "check_patch",
    "lateral_pairs",
    "make_plan",
    "plan_folder",
    "take_fingerprint",
    "this_machine",
    "warn_of_few_steps",
    "with_gpu",
]
