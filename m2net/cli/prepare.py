"""``m2net prepare``: fill the store before training."""

from __future__ import annotations

from m2net.cli.options import add_store, parser
from m2net.vocabulary import DEFAULT_SPACING_MM


def run(argv: list[str]) -> int:
    """Prepare what is missing."""
    options = parser(argv[0], "Resample, find body and lungs, and store the studies of a manifest. Can be stopped and run again.")
    add_store(options)
    options.add_argument("--spacing", type=float, default=DEFAULT_SPACING_MM, help="in-plane pixel size in mm (data.input.spacing_mm)")
    options.add_argument("--allow", nargs="+", default=[], metavar="STUDY_ID", help="use these although m2net verify rejects them")
    given = options.parse_args(argv[1:])
    from m2net.bags.preparing import prepare_missing, refuse_rejected
    from m2net.bags.store import Store
    from m2net.studies import read_manifest

    manifest = read_manifest(given.manifest)
    store = Store(given.store, given.spacing, repair=given.repair)
    done = prepare_missing(store, list(manifest), given.workers)
    refuse_rejected(store, list(manifest), given.allow)
    print(f"{given.store}: {len(manifest)} studies at {given.spacing} mm ({done} prepared now)")
    return 0
