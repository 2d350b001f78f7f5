"""``m2net fuse``: an ensemble in one checkpoint."""

from __future__ import annotations

from pathlib import Path

from m2net.cli.options import parser


def run(argv: list[str]) -> int:
    """Write the checkpoint."""
    options = parser(argv[0], "Make one checkpoint of several runs of one configuration; its answer is the mean of theirs.")
    options.add_argument("checkpoints", type=Path, nargs="+", help="best.ckpt of each run: score_maps heads, no decoder")
    options.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    given = options.parse_args(argv[1:])
    from m2net.training.fusing import fuse

    fuse(given.checkpoints, given.out)
    print(f"{given.out}: {len(given.checkpoints)} members")
    return 0
