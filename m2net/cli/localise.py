"""``m2net localise``: how well a model points at infections whose masks are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from m2net.cli.options import add_store, count, folder, parser, progress
from m2net.errors import ConfigError

if TYPE_CHECKING:
    from m2net.studies import Manifest, Study
    from m2net.vocabulary import Split


def run(argv: list[str]) -> int:
    """Judge the test part; the threshold of the boxes is chosen on the validation part."""
    options = parser(
        argv[0],
        "Pointing game, boxes and AUPRC of a model's saliency, or of the infection that it draws, against infection masks. The threshold "
        "of the boxes is chosen on the manifest's validation part, everything is reported on its test part.",
    )
    add_store(options)
    options.add_argument("--model", type=Path, required=True, help="checkpoint written by m2net fit")
    options.add_argument("--out", type=folder, required=True, help="folder for localisation.json and localisation.csv")
    options.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="saliencies to compare (all four unless told otherwise): score_maps, joint, grad_cam, grad_cam_depths; or drawn, alone: the "
        "probability of infection that a segmentation task draws",
    )
    options.add_argument("--most", type=count, default=0, help="judge at most this many studies of each part (0: all)")
    given = options.parse_args(argv[1:])
    from m2net.assessment import DRAWN, SALIENCY, DrawnInfection, Explainer
    from m2net.assessment.localisation import THRESHOLDS, has_infection, localise
    from m2net.bags.preparing import prepare_missing
    from m2net.bags.store import Store
    from m2net.machine import keep_big_blocks
    from m2net.reports.localisation import write_localisation
    from m2net.studies import read_manifest
    from m2net.vocabulary import Split

    methods = given.methods or list(SALIENCY)
    strange = set(methods) - {*SALIENCY, DRAWN}
    if strange:
        raise ConfigError(f"the saliency {', '.join(sorted(strange))} is unknown", expected=f"some of {', '.join((*SALIENCY, DRAWN))}")
    if DRAWN in methods and len(methods) > 1:
        raise ConfigError(
            f"--methods {' '.join(methods)}", expected=f"{DRAWN} alone, or saliencies", remedy="Judge them one after the other"
        )
    keep_big_blocks()
    manifest = read_manifest(given.manifest)
    parts = {split: _usable(manifest, split, given.most) for split in (Split.VAL, Split.TEST)}
    judge = DrawnInfection(given.model) if DRAWN in methods else Explainer(given.model)
    store = Store(given.store, judge.model.spec.spacing_mm, repair=given.repair)
    prepare_missing(store, [s for part in parts.values() for s in part], given.workers)
    for split, part in parts.items():
        if not any(has_infection(store.open(study)) for study in part):
            raise ConfigError(f"no infection is drawn in the {split} part of {manifest.path}", expected="studies with and without")
    judged = {}
    for split, part in parts.items():
        studies = progress(part, f"Localising ({split})", len(part))
        judged[split] = [localise(judge, study, store.open(study), methods, THRESHOLDS) for study in studies]
    versions = {study.extra.get("phantom_version", "") for study in parts[Split.TEST]} - {""}
    print(write_localisation(given.out, judged[Split.VAL], judged[Split.TEST], methods, judge.names, ", ".join(sorted(versions))))
    return 0


def _usable(manifest: Manifest, split: Split, most: int) -> list[Study]:
    """Studies of a part that have an infection mask or are known to be free of pneumonia.

    Raises:
        ConfigError: there are none.
    """
    from m2net.vocabulary import Column, Diagnosis

    chosen = [s for s in manifest if s.split is split and (Column.INFECTION in s.masks or s.possible == {Diagnosis.NON_PNEUMONIA})]
    chosen = chosen[:most] if most else chosen
    if not any(Column.INFECTION in s.masks for s in chosen):
        raise ConfigError(f"no study of {manifest.path} in the {split} part has an infection mask", expected="at least one")
    return chosen
