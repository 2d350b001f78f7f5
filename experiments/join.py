"""Several manifests as one, with paths from the new one's folder.

python experiments/join.py OUT MANIFEST [MANIFEST ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from m2net.recipes.table import Row, read_table, relative, write
from m2net.vocabulary import MASK_COLUMNS, Column


def joined(sources: list[Path], out: Path) -> Iterator[Row]:
    """Rows of all, in order."""
    for source in sources:
        for entry in read_table(source):
            paths = {c: relative(source.parent / entry[c], out) for c in (Column.IMAGE, *MASK_COLUMNS) if entry.get(c)}
            yield {**entry, **paths}


def main() -> None:
    """Write the manifest."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path)
    options.add_argument("manifests", type=Path, nargs="+")
    given = options.parse_args()
    print(f"{given.out}: {write(given.out, joined(given.manifests, given.out), given.manifests[0], 'studies')} studies")


if __name__ == "__main__":
    main()
