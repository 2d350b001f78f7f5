"""``m2net assess``: a trained model on new studies."""

from __future__ import annotations

import sys
from pathlib import Path

from m2net.cli.options import parser, progress
from m2net.errors import M2NetError
from m2net.vocabulary import Modality


def run(argv: list[str]) -> int:
    """Assess each study; a study that fails is told and does not stop the others (exit code 2 at the end)."""
    options = parser(argv[0], "Assess studies with a trained model and write a page for each. Research use only.")
    options.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help="NIfTI/MHA/NRRD file, DICOM folder, slice or radiograph")
    options.add_argument("--model", type=Path, required=True, help="checkpoint written by m2net fit")
    options.add_argument("--out", type=Path, required=True, help="folder for the results, one folder a study")
    options.add_argument("--series", default="", help="UID or number of the DICOM series to read, where a folder holds several")
    options.add_argument("--kernel", default="", choices=["", "soft", "lung"], help="reconstruction to prefer, where there are several")
    options.add_argument("--repair", action="store_true", help="resample uneven, missing or sheared slices instead of refusing them")
    options.add_argument("--islands", action="store_true", help="CT: keep in the maps what is drawn as lung apart from the lungs")
    given = options.parse_args(argv[1:])
    from m2net.machine import keep_big_blocks
    from m2net.studies import ReadOptions, read_image

    keep_big_blocks()
    reading = ReadOptions(given.series, given.kernel, given.repair)
    for study in given.studies:
        if not study.exists() and len(given.studies) == 1:
            read_image(study)  # raises before the model is loaded
    from m2net.assessment import Assessor
    from m2net.reports.assessment import output_names, write_assessment

    assessor = Assessor(given.model, islands=given.islands)
    modality = Modality(assessor.model.spec.modality)
    failed = 0
    names = output_names(given.studies)
    for study, name in progress(list(zip(given.studies, names, strict=True)), "Assessing", len(names)):
        try:
            page = write_assessment(given.out / name, assessor.assess(read_image(study, reading, modality)), name)
            print(page)
        except M2NetError as error:
            failed += 1
            print(f"m2net: {error}", file=sys.stderr)
    return 2 if failed else 0
