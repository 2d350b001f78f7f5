"""A trained model on new studies."""

from m2net.assessment.boxes import InfectionBox, find_boxes
from m2net.assessment.drawn import DRAWN, DrawnInfection
from m2net.assessment.explainer import Explainer, Explanation
from m2net.assessment.findings import DetectionFinding, Findings, ScoreFinding, SeverityFinding
from m2net.assessment.measures import HU_BANDS, LobeMeasures, measure_lobes
from m2net.assessment.predictor import Assessment, Assessor, Patch
from m2net.assessment.saliency import SALIENCY
from m2net.assessment.stitching import stitch_labels, stitch_values

__all__ = [
    "DRAWN",
    "HU_BANDS",
    "SALIENCY",
    "Assessment",
    "Assessor",
    "DetectionFinding",
    "DrawnInfection",
    "Explainer",
    "Explanation",
    "Findings",
    "InfectionBox",
    "LobeMeasures",
    "Patch",
    "ScoreFinding",
    "SeverityFinding",
    "find_boxes",
    "measure_lobes",
    "stitch_labels",
    "stitch_values",
]  # fmt: skip
