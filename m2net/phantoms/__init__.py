"""A synthetic thorax: anatomy, disease, CT formation, outcome and cohorts."""

from m2net.phantoms.cohort import FORMATS, CohortPlan, write_cohort
from m2net.phantoms.files import write_dicom_series, write_nifti
from m2net.phantoms.outcome import GRADERS, SEVERITY_MODELS, SeverityModel
from m2net.phantoms.painting import PAINTING_VERSION
from m2net.phantoms.paintings import PaintingPlan, paintable, write_paintings
from m2net.phantoms.patient import PHANTOM_VERSION, Phantom, make_phantom
from m2net.phantoms.scanner import SCANNERS, Scanner
from m2net.phantoms.vessels import FEWEST_TIPS

__all__ = [
    "FEWEST_TIPS", "FORMATS", "GRADERS", "PAINTING_VERSION", "PHANTOM_VERSION", "SCANNERS", "SEVERITY_MODELS", "CohortPlan",
    "PaintingPlan", "Phantom", "Scanner", "SeverityModel", "make_phantom", "paintable", "write_cohort",
    "write_dicom_series", "write_nifti", "write_paintings",
]  # fmt: skip
