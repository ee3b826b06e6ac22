"""Scores of predicted label maps against reference label maps: cases.csv and summary.json."""

from voxelseg.evaluate.case import ClassScore
from voxelseg.evaluate.evaluation import Evaluation, read_evaluation
from voxelseg.evaluate.folders import evaluate, evaluate_pairs
from voxelseg.evaluate.table import class_table, cross_validation_table

__all__ = [
    "ClassScore",
    "Evaluation",
    "class_table",
    "cross_validation_table",
    "evaluate",
    "evaluate_pairs",
    "read_evaluation",
]
