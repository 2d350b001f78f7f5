"""``m2net phantom``: write a synthetic cohort."""

from __future__ import annotations

import json
from pathlib import Path

from m2net.cli.options import count, folder, parser, progress
from m2net.machine import cpu_count
from m2net.vocabulary import Diagnosis, Modality


def run(argv: list[str]) -> int:
    """Write files and manifest.csv."""
    from m2net.phantoms import FEWEST_TIPS, FORMATS, GRADERS, SCANNERS, SEVERITY_MODELS, CohortPlan, write_cohort

    options = parser(argv[0], "Write a synthetic cohort with its ground truth.")
    options.add_argument("--out", type=folder, required=True, help="folder for the files and manifest.csv")
    options.add_argument("--patients", type=int, required=True, help="number of patients, one study each")
    options.add_argument("--seed", type=count, required=True, help="seed of the cohort")
    options.add_argument("--site", default="home", help=f"scanner profile: {', '.join(SCANNERS)}")
    options.add_argument("--modality", default="ct", choices=[str(m) for m in Modality], help="cxr: a frontal radiograph of each patient")
    options.add_argument("--format", choices=FORMATS, help="of the images; nifti for CT (png: pictures of slices), png for radiographs")
    options.add_argument("--pictures", type=int, default=16, help="slices of each patient, a study each (png)")
    options.add_argument("--matrix", type=int, default=192, help="pixels along each in-plane axis; of a radiograph's longer side")
    options.add_argument("--slice-mm", type=float, help="slice thickness in mm; drawn from the site's by default")
    options.add_argument("--grades", type=int, default=2, help=f"severity grades: {', '.join(map(str, SEVERITY_MODELS))}")
    options.add_argument("--graders", choices=list(GRADERS), default="extent", help="what the site's graders weigh (CT)")
    options.add_argument("--mix", type=float, nargs=3, metavar="P", help=f"chances of {', '.join(Diagnosis)}; equal by default")
    options.add_argument(
        "--lobes", type=Path, nargs="+", default=[], metavar="MASK",
        help="lobe masks of real patients (volumes) whose lungs the patients get, bent a little; patients of one mask share a patient_id",
    )  # fmt: skip
    options.add_argument("--lobes-scheme", default="", help="codes of these masks, as the column lobes_scheme of a manifest names them")
    options.add_argument("--scars", action="store_true", help="emphysema, cysts, fibrosis and masses as well, whatever the diagnosis (CT)")
    options.add_argument("--vessel-tips", type=int, default=FEWEST_TIPS, help="vessels' ends in a lobe; with more they are finer (CT)")
    options.add_argument("--workers", type=int, default=cpu_count(), help="processes")
    given = options.parse_args(argv[1:])
    kind = given.format or ("png" if given.modality == Modality.CXR else "nifti")
    size = (given.matrix, given.slice_mm, given.grades, given.pictures)
    mix = None if given.mix is None else tuple(given.mix)
    plan = CohortPlan(
        given.patients,
        given.seed,
        given.site,
        kind,
        *size,
        given.modality,
        given.graders,
        mix,
        tuple(map(str, given.lobes)),
        given.lobes_scheme,
        given.scars,
        given.vessel_tips,
    )
    plan.check()
    for _ in progress(write_cohort(plan, given.out, given.workers), f"Making {plan.patients} patients", plan.patients):
        pass
    print(f"{given.out / 'manifest.csv'}: {plan.patients} synthetic patients, phantom version {plan.told}, seed {plan.seed}")
    if given.modality == Modality.CXR:
        return 0
    best = json.loads((given.out / "cohort.json").read_text(encoding="utf-8"))["severity_auc_best"]
    reached = "undefined" if best is None else f"{best:.3f}"
    print(f"best AUC for severity on these patients, from the probabilities it was drawn with: {reached}")
    return 0
