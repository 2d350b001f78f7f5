"""``m2net assess``: a trained model on new studies."""

from __future__ import annotations

from m2net.cli.each_study import add_studies, check_studies, each_study
from m2net.cli.options import parser


def run(argv: list[str]) -> int:
    """Assess each study; a study that fails is told and does not stop the others (exit code 2 at the end)."""
    options = parser(argv[0], "Assess studies with a trained model and write a page for each. Research use only.")
    add_studies(options, "NIfTI/MHA/NRRD file, DICOM folder, slice or radiograph", "checkpoint written by m2net fit")
    options.add_argument(
        "--islands", action="store_true", help="CT: keep in the maps what is drawn apart from the lungs, and in airways or bowel"
    )
    given = options.parse_args(argv[1:])
    check_studies(given)
    from m2net.assessment import Assessor
    from m2net.reports.assessment import write_assessment

    assessor = Assessor(given.model, islands=given.islands)
    return each_study(given, "Assessing", assessor.model, lambda v, folder, name: write_assessment(folder, assessor.assess(v), name))
