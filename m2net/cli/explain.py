"""``m2net explain``: a diagnosis with where it comes from."""

from __future__ import annotations

import sys
from pathlib import Path

from m2net.cli.options import parser, progress
from m2net.errors import M2NetError
from m2net.vocabulary import Modality


def run(argv: list[str]) -> int:
    """Explain each study; a study that fails is told and does not stop the others (exit code 2 at the end)."""
    options = parser(
        argv[0],
        "Diagnose studies with a weakly supervised model and show where the predicted class comes from: overlays (PNG), boxes "
        "(explanation.json) and the saliency on the study's own grid. Research use only.",
    )
    options.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help="NIfTI/MHA/NRRD file, DICOM folder or PNG slice")
    options.add_argument("--model", type=Path, required=True, help="checkpoint written by m2net fit, with a score_maps head")
    options.add_argument("--out", type=Path, required=True, help="folder for the results, one folder a study")
    options.add_argument("--method", default="score_maps", help="saliency: score_maps, joint or grad_cam")
    options.add_argument("--threshold", type=float, default=0.15, help="saliency from which a pixel is in a box; see m2net localise")
    options.add_argument("--overlays", type=int, default=6, help="slices to draw")
    options.add_argument("--series", default="", help="UID or number of the DICOM series to read, where a folder holds several")
    options.add_argument("--kernel", default="", choices=["", "soft", "lung"], help="reconstruction to prefer, where there are several")
    options.add_argument("--repair", action="store_true", help="resample uneven, missing or sheared slices instead of refusing them")
    given = options.parse_args(argv[1:])
    from m2net.machine import keep_big_blocks
    from m2net.studies import ReadOptions, read_image

    keep_big_blocks()
    for study in given.studies:
        if not study.exists() and len(given.studies) == 1:
            read_image(study)  # raises before the model is loaded
    from m2net.assessment import Explainer
    from m2net.reports.assessment import output_names
    from m2net.reports.explanation import write_explanation

    explainer = Explainer(given.model, given.method, given.threshold)
    modality = Modality(explainer.model.spec.modality)
    failed = 0
    names = output_names(given.studies)
    reading = ReadOptions(given.series, given.kernel, given.repair)
    for study, name in progress(list(zip(given.studies, names, strict=True)), "Explaining", len(names)):
        try:
            explanation = explainer.explain(read_image(study, reading, modality))
            print(write_explanation(given.out / name, explanation, name, given.overlays))
        except M2NetError as error:
            failed += 1
            print(f"m2net: {error}", file=sys.stderr)
    return 2 if failed else 0
