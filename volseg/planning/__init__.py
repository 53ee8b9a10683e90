"""The plan: a data set is looked at once, and everything is decided from general facts."""

from volseg.planning.fingerprint import CasePrint, Fingerprint, take_fingerprint
from volseg.planning.machine import CPU, Machine, this_machine, with_gpu
from volseg.planning.rules import Plan, make_plan
from volseg.planning.sides import lateral_pairs

__all__ = [
    "CPU",
    "CasePrint",
    "Fingerprint",
    "Machine",
    "Plan",
    "lateral_pairs",
    "make_plan",
    "take_fingerprint",
    "this_machine",
    "with_gpu",
]
