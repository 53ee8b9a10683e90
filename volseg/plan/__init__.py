"""The plan: a data set is looked at once, and everything is decided from general facts."""

from volseg.plan.fingerprint import CasePrint, Fingerprint, take_fingerprint
from volseg.plan.machine import CPU, Machine, this_machine, with_gpu
from volseg.plan.rules import Plan, make_plan
from volseg.plan.sides import lateral_pairs

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
