"""Patches a second of one training step of M²UNet at the paper's width: plain, then with what m2net does on a CPU, one thing after another.

python benchmarks/train_step.py [--repeats 5] [--patches 32] [--size 96]

Each way runs in a process of its own, for the allocator's setting holds for all of it. Writes train_step.csv beside this file.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from m2net.batch import BagBatch
from m2net.machine import fast_bfloat16, keep_big_blocks
from m2net.networks import M2Net

WAYS = {
    "plain": (),
    "+ big blocks kept": ("blocks",),
    "+ channels last": ("blocks", "last"),
    "+ bfloat16": ("blocks", "last", "bf16"),
}
"""What is switched on; the last is what ``trainer.precision: bf16-mixed`` does on a CPU that multiplies bfloat16."""
HEADS = {
    "lobes": {"name": "dense", "classes": 6},
    "severity": {"name": "hierarchical", "concepts": [256, 128], "classes": 1},
}


def bag(patches: int, size: int) -> BagBatch:
    """One study of noise."""
    return BagBatch(
        instances=torch.rand(patches, 1, size, size) * 2 - 1, bag_index=torch.zeros(patches, dtype=torch.int64),
        position=torch.zeros(patches, 3), position_known=torch.zeros(patches, 3, dtype=torch.bool),
        position_step=torch.zeros(patches, 2, 3), corner=torch.zeros(patches, 3, dtype=torch.int64), side=torch.full((patches,), size),
        study_ids=["s"], draws=torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip


def step(network: M2Net, optimizer: torch.optim.Optimizer, batch: BagBatch, lobes: torch.Tensor, *, bf16: bool) -> None:
    """Forward, loss, backward, optimizer."""
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outputs = network(batch)
    loss = F.cross_entropy(outputs["lobes"].logits.float(), lobes) + F.softplus(outputs["severity"].logits.float()).mean()
    loss.backward()
    optimizer.step()


def measure(way: str, repeats: int, patches: int, size: int) -> None:
    """Print the patches a second of each step, after two that are not counted."""
    on = WAYS[way]
    if "blocks" in on and not keep_big_blocks():
        sys.exit("the allocator takes no hint on this system (Linux with glibc only)")
    torch.manual_seed(0)
    network = M2Net(1, {"name": "m2unet", "width": 64}, HEADS, {"name": "m2unet", "width": 64}).train()
    batch, lobes = bag(patches, size), torch.randint(6, (patches, size, size))
    if "last" in on:
        network = network.to(memory_format=torch.channels_last)
    else:
        plain = M2Net._answers
        network._answers = lambda images: plain(network, images.contiguous())  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for k in range(repeats + 2):
        start = time.perf_counter()
        step(network, optimizer, batch, lobes, bf16="bf16" in on)
        if k > 1:
            print(patches / (time.perf_counter() - start))


def main() -> None:
    """Measure every way, print and write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--patches", type=int, default=32)
    options.add_argument("--size", type=int, default=96)
    options.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    given = options.parse_args()
    sizes = [str(given.repeats), str(given.patches), str(given.size)]
    if given.way:
        measure(given.way, given.repeats, given.patches, given.size)
        return
    rows = []
    for way in WAYS:
        if way.endswith("bfloat16") and not fast_bfloat16():
            print("no bfloat16 in this CPU's hardware: left out")
            continue
        words = [word for name, value in zip(("--repeats", "--patches", "--size"), sizes, strict=True) for word in (name, value)]
        done = subprocess.run([sys.executable, __file__, "--way", way, *words], check=True, stdout=subprocess.PIPE, text=True)
        found = [float(line) for line in done.stdout.split()]
        speed = {"patches_a_second": statistics.median(found), "low": min(found), "high": max(found)}
        facts = {"n": len(found), "patches": given.patches, "size": given.size, "threads": torch.get_num_threads()}
        rows.append({"way": way, **{name: f"{value:.1f}" for name, value in speed.items()}, **facts})
        print(*(f"{key} {value}" for key, value in rows[-1].items()), sep="  ")
    with Path(__file__).with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
