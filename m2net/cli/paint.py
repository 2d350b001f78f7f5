"""``m2net paint``: synthetic infection in real lungs that have none."""

from __future__ import annotations

from pathlib import Path

from m2net.cli.options import count, folder, parser, progress
from m2net.machine import cpu_count
from m2net.vocabulary import Diagnosis


def run(argv: list[str]) -> int:
    """Write pictures, masks and manifest.csv."""
    from m2net.phantoms import PAINTING_VERSION, PaintingPlan, paintable, write_paintings
    from m2net.studies import read_manifest

    options = parser(argv[0], "Paint synthetic infection, with its masks, and look-alikes into slices of real CT without infection.")
    options.add_argument("manifest", type=Path, help="CT studies, volumes or pictures, with 0 in the column infected")
    options.add_argument("--out", type=folder, required=True, help="folder for the pictures and manifest.csv")
    options.add_argument("--seed", type=count, required=True, help="seed of what is painted")
    options.add_argument("--slices", type=int, default=32, help="slices of a volume, evenly over its lungs")
    options.add_argument("--times", type=int, default=20, help="paintings of each slice")
    options.add_argument("--matrix", type=int, default=256, help="longest side of a painting in pixels")
    options.add_argument("--mix", type=float, nargs=3, metavar="P", help=f"chances of {', '.join(Diagnosis)}; equal by default")
    options.add_argument("--workers", type=int, default=cpu_count(), help="processes")
    given = options.parse_args(argv[1:])
    plan = PaintingPlan(given.seed, given.slices, given.times, given.matrix, None if given.mix is None else tuple(given.mix))
    plan.check()
    studies = paintable(read_manifest(given.manifest))
    painting = write_paintings(studies, plan, given.out, given.workers)
    for _ in progress(painting, f"Painting into {len(studies)} studies", len(studies)):
        pass
    where = given.out / "manifest.csv"
    print(f"{where}: synthetic infection in {len(studies)} studies, painting version {PAINTING_VERSION}, seed {plan.seed}")
    return 0
