"""Several manifests as one, with paths from the new one's folder.

python experiments/join.py OUT MANIFEST [MANIFEST ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from m2net.recipes.table import joined, write


def main() -> None:
    """Write the manifest."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path)
    options.add_argument("manifests", type=Path, nargs="+")
    given = options.parse_args()
    print(f"{given.out}: {write(given.out, joined(given.manifests, given.out), given.manifests[0], 'studies')} studies")


if __name__ == "__main__":
    main()
