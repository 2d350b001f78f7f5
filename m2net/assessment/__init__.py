"""A trained model on new studies."""

from m2net.assessment.measures import HU_BANDS, LobeMeasures, measure_lobes
from m2net.assessment.predictor import Assessment, Assessor, Patch, SeverityFinding
from m2net.assessment.stitching import stitch_labels

__all__ = [
    "HU_BANDS", "Assessment", "Assessor", "LobeMeasures", "Patch", "SeverityFinding", "measure_lobes", "stitch_labels",
]  # fmt: skip
