"""Per task: loss, metrics, and how its label is read and its output named."""

from m2net.objectives.base import Objective
from m2net.objectives.bootstrap import Interval, intervals, patient_bootstrap
from m2net.objectives.diagnosis import DiagnosisObjective, group_metrics, group_statistics
from m2net.objectives.segmentation import SegmentationObjective
from m2net.objectives.severity import SeverityObjective, at_or_above, auc, cut_auc, grade_metrics

OBJECTIVES = {"diagnosis": DiagnosisObjective, "segmentation": SegmentationObjective, "severity": SeverityObjective}
"""Objectives by name."""

__all__ = [
    "OBJECTIVES",
    "DiagnosisObjective",
    "Interval",
    "Objective",
    "SegmentationObjective",
    "SeverityObjective",
    "at_or_above",
    "auc",
    "cut_auc",
    "grade_metrics",
    "group_metrics",
    "group_statistics",
    "intervals",
    "patient_bootstrap",
]
