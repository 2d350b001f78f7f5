"""``m2net recipe``: a public data set's folder, or a hospital's own, to a manifest."""

from __future__ import annotations

from pathlib import Path

from m2net.cli.options import new_file, parser
from m2net.errors import ConfigError


def run(argv: list[str]) -> int:
    """Write the manifest."""
    from m2net.recipes import RECIPES

    options = parser(argv[0], "Write the manifest of a public data set's own folder layout, or of a folder of your own (folders).")
    options.add_argument("name", help=f"data set: {', '.join(RECIPES)}")
    options.add_argument("raw", type=Path, help="its folder, as downloaded and unpacked; or your own")
    options.add_argument("--out", type=new_file, help="manifest to write; default RAW/manifest.csv, or beside RAW where that is a file")
    given = options.parse_args(argv[1:])
    if given.name not in RECIPES:
        raise ConfigError(f"the data set {given.name!r} is unknown", expected=f"one of {', '.join(RECIPES)}")
    out = given.out or (given.raw.parent if given.raw.is_file() else given.raw) / "manifest.csv"
    if out.exists():
        raise ConfigError(f"{out} is there already", expected="a new file, for labels may stand in it", remedy="Give another --out")
    print(f"{out}: {RECIPES[given.name](given.raw, out)} studies")
    return 0
