"""``m2net localise``: how well a weakly supervised model points at infections whose masks are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from m2net.cli.options import add_store, parser, progress
from m2net.errors import ConfigError

if TYPE_CHECKING:
    from m2net.studies import Manifest, Study
    from m2net.vocabulary import Split


def run(argv: list[str]) -> int:
    """Judge the test part; the threshold of the boxes is chosen on the validation part."""
    options = parser(
        argv[0],
        "Pointing game, boxes and AUPRC of a model's saliency against infection masks, which training never saw. The threshold of the "
        "boxes is chosen on the manifest's validation part, everything is reported on its test part.",
    )
    add_store(options)
    options.add_argument("--model", type=Path, required=True, help="checkpoint written by m2net fit")
    options.add_argument("--out", type=Path, required=True, help="folder for localisation.json and localisation.csv")
    options.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="saliencies to compare (all unless told otherwise): score_maps, joint, grad_cam, grad_cam_depths",
    )
    options.add_argument("--most", type=int, default=0, help="judge at most this many studies of each part (0: all)")
    given = options.parse_args(argv[1:])
    from m2net.assessment import SALIENCY, Explainer
    from m2net.assessment.localisation import THRESHOLDS, localise
    from m2net.bags.preparing import prepare_missing
    from m2net.bags.store import Store
    from m2net.machine import keep_big_blocks
    from m2net.reports.localisation import write_localisation
    from m2net.studies import read_manifest
    from m2net.vocabulary import Split

    methods = given.methods or list(SALIENCY)
    strange = set(methods) - set(SALIENCY)
    if strange:
        raise ConfigError(f"the saliency {', '.join(sorted(strange))} is unknown", expected=f"some of {', '.join(SALIENCY)}")
    keep_big_blocks()
    manifest = read_manifest(given.manifest)
    parts = {split: _usable(manifest, split, given.most) for split in (Split.VAL, Split.TEST)}
    explainer = Explainer(given.model)
    store = Store(given.store, explainer.model.spec.spacing_mm, repair=given.repair)
    prepare_missing(store, [s for part in parts.values() for s in part], given.workers)
    judged = {}
    for split, part in parts.items():
        studies = progress(part, f"Localising ({split})", len(part))
        judged[split] = [localise(explainer, study, store.open(study), methods, THRESHOLDS) for study in studies]
    versions = {study.extra.get("phantom_version", "") for study in parts[Split.TEST]} - {""}
    names = explainer.objective.names
    print(write_localisation(given.out, judged[Split.VAL], judged[Split.TEST], methods, names, ", ".join(sorted(versions))))
    return 0


def _usable(manifest: Manifest, split: Split, most: int) -> list[Study]:
    """Studies of a part that have an infection mask or are known to be free of pneumonia.

    Raises:
        ConfigError: there are none.
    """
    from m2net.vocabulary import Column, Diagnosis

    chosen = [s for s in manifest if s.split is split and (Column.INFECTION in s.masks or s.possible == {Diagnosis.NON_PNEUMONIA})]
    if not chosen:
        raise ConfigError(f"no study of {manifest.path} in the {split} part has an infection mask", expected="at least one")
    return chosen[:most] if most else chosen
