"""From scans to decisions: the fingerprint measures a data set, the planner turns it into a plan."""

from voxelseg.plan.fingerprint import CaseFingerprint, Fingerprint, compute_fingerprint
from voxelseg.plan.plan import Normalization, Plan, read_plan
from voxelseg.plan.planner import PlanLimits, make_plan

__all__ = [
    "CaseFingerprint",
    "Fingerprint",
    "Normalization",
    "Plan",
    "PlanLimits",
    "compute_fingerprint",
    "make_plan",
    "read_plan",
]
