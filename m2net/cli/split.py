"""``m2net split``: patient-grouped, stratified folds or parts."""

from __future__ import annotations

from pathlib import Path

from m2net.cli.options import count, parser
from m2net.errors import ConfigError


def run(argv: list[str]) -> int:
    """Write a copy of the manifest with its fold or split column set."""
    options = parser(argv[0], "Split the patients of a manifest, stratified by site, diagnosis and severity.")
    options.add_argument("manifest", type=Path)
    options.add_argument("--folds", type=int, help="number of folds: sets the fold column")
    options.add_argument("--parts", type=float, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help="shares: sets the split column")
    options.add_argument("--leave-one-site-out", action="store_true", help="one fold a site: sets the fold column")
    options.add_argument("--seed", type=count, default=0)
    options.add_argument("--out", type=Path, help="file to write, beside the manifest; default NAME.split.csv")
    given = options.parse_args(argv[1:])
    if sum((given.folds is not None, given.parts is not None, given.leave_one_site_out)) != 1:
        raise ConfigError("not exactly one of --folds, --parts and --leave-one-site-out is given", expected="one of them")
    from m2net.recipes.table import read_table
    from m2net.studies import assign_folds, assign_parts, assign_sites, read_manifest, write_assignment
    from m2net.vocabulary import Column

    column = Column.SPLIT if given.parts is not None else Column.FOLD
    manifest = read_manifest(given.manifest, replacing=column)
    out = given.out or given.manifest.with_suffix(".split.csv")
    other = Column.FOLD if column is Column.SPLIT else Column.SPLIT
    if not given.out and out.exists() and other not in manifest.columns and any(other in row for row in read_table(out)):
        raise ConfigError(
            f"{out} holds the {other} column of an earlier m2net split, which would be lost", expected="another file",
            remedy="Name one with --out",
        )  # fmt: skip
    if given.folds is not None:
        chosen = {p: str(f) for p, f in assign_folds(manifest.studies, given.folds, given.seed).items()}
    elif given.leave_one_site_out:
        chosen = {p: str(f) for p, f in assign_sites(manifest.studies).items()}
    else:
        chosen = {p: str(s) for p, s in assign_parts(manifest.studies, tuple(given.parts), given.seed).items()}
    write_assignment(manifest, column, chosen, out)
    counts = {name: sum(chosen[s.patient_id] == name for s in manifest) for name in sorted(set(chosen.values()))}
    print(f"{out}: " + ", ".join(f"{name} {n} studies" for name, n in counts.items()))
    return 0
