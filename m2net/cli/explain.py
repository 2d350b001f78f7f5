"""``m2net explain``: a diagnosis with where it comes from."""

from __future__ import annotations

from m2net.cli.each_study import add_studies, check_studies, each_study
from m2net.cli.options import count, parser


def run(argv: list[str]) -> int:
    """Explain each study; a study that fails is told and does not stop the others (exit code 2 at the end)."""
    options = parser(
        argv[0],
        "Diagnose studies with a weakly supervised model and show where the predicted class comes from: overlays (PNG), boxes "
        "(explanation.json) and the saliency on the study's own grid. Research use only.",
    )
    add_studies(
        options, "NIfTI/MHA/NRRD file, DICOM folder, PNG slice or radiograph", "checkpoint written by m2net fit, with a score_maps head"
    )
    options.add_argument("--method", help="saliency: score_maps (unless told otherwise), joint, grad_cam or grad_cam_depths")
    options.add_argument(
        "--threshold",
        type=float,
        help="saliency from which a pixel is in a box (by default the method's own for CT, or for pictures); m2net localise chooses one",
    )
    options.add_argument("--overlays", type=count, default=6, help="slices to draw")
    given = options.parse_args(argv[1:])
    check_studies(given)
    from m2net.assessment import Explainer
    from m2net.assessment.explainer import DEFAULT_METHOD
    from m2net.reports.explanation import write_explanation

    explainer = Explainer(given.model, given.method or DEFAULT_METHOD, given.threshold)
    return each_study(
        given, "Explaining", explainer.model, lambda v, folder, name: write_explanation(folder, explainer.explain(v), name, given.overlays)
    )
