"""Per task: loss, metrics, and how its label is read and its output named."""

from m2net.objectives.base import Objective
from m2net.objectives.bootstrap import Interval, intervals, patient_bootstrap
from m2net.objectives.burden import BurdenReading
from m2net.objectives.calibration import at_or_above
from m2net.objectives.detection import DetectionReading
from m2net.objectives.diagnosis import DiagnosisObjective, group_metrics, group_statistics
from m2net.objectives.folds import folds_of, ranks, statistics_within_folds, within_folds
from m2net.objectives.readings import Reading
from m2net.objectives.restoration import RestorationObjective
from m2net.objectives.scores import ScoreObjective
from m2net.objectives.segmentation import SegmentationObjective
from m2net.objectives.severity import SeverityObjective, auc, cut_auc, grade_metrics

OBJECTIVES = {
    "burden": BurdenReading,
    "detection": DetectionReading,
    "diagnosis": DiagnosisObjective,
    "restoration": RestorationObjective,
    "score": ScoreObjective,
    "segmentation": SegmentationObjective,
    "severity": SeverityObjective,
}
"""Objectives by name."""

__all__ = [
    "OBJECTIVES",
    "BurdenReading",
    "DetectionReading",
    "DiagnosisObjective",
    "Interval",
    "Objective",
    "Reading",
    "RestorationObjective",
    "ScoreObjective",
    "SegmentationObjective",
    "SeverityObjective",
    "at_or_above",
    "auc",
    "cut_auc",
    "folds_of",
    "grade_metrics",
    "group_metrics",
    "group_statistics",
    "intervals",
    "patient_bootstrap",
    "ranks",
    "statistics_within_folds",
    "within_folds",
]
