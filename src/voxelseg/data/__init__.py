"""Data sets on disk: cases, labels, layouts, splits, checks."""

from voxelseg.data.checks import CheckReport, check_dataset, print_report
from voxelseg.data.dataset import Case, Dataset, Problem, patient_of
from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.data.layouts import LAYOUTS, read_dataset
from voxelseg.data.splits import Split, make_splits, read_splits, splits_of

__all__ = [
    "LAYOUTS",
    "Case",
    "CheckReport",
    "Dataset",
    "LabelClass",
    "LabelScheme",
    "Problem",
    "Split",
    "check_dataset",
    "make_splits",
    "patient_of",
    "print_report",
    "read_dataset",
    "read_splits",
    "splits_of",
]
