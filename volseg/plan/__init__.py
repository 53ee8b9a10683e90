"""The plan: a data set is looked at once, and everything is decided from general facts."""

from volseg.plan.fingerprint import CasePrint, Fingerprint, take_fingerprint
from volseg.plan.rules import Plan, make_plan
from volseg.plan.sides import lateral_pairs
from volseg.plan.topology import CPU_FEATURES, GPU_FEATURES

__all__ = [
    "CPU_FEATURES",
    "GPU_FEATURES",
    "CasePrint",
    "Fingerprint",
    "Plan",
    "lateral_pairs",
    "make_plan",
    "take_fingerprint",
]
