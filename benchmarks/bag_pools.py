"""m2net's pools against torchmil's on the same drawn bags: AUC after the same training, and seconds a step.

python benchmarks/bag_pools.py            # needs `pip install torchmil`, which m2net does not; also writes bag_pools.csv beside this file

Two problems, both drawn: `witness`, a bag is positive if one of its instances is of a certain kind; `share`, if more than a fifth are.
Bags hold 1 to 60 instances. m2net's pools take instances flat with the index of their bag, torchmil's take bags padded to the longest,
with a mask.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from m2net.networks.bag_pools import BAG_POOLS
from m2net.reports.results import write_table

try:
    from torchmil.models import ABMIL, TransformerABMIL
except ImportError as error:
    raise SystemExit("torchmil is not installed: pip install torchmil") from error

OUT = Path(__file__).with_suffix(".csv")
WIDTH, LONGEST = 32, 60
TRAIN, TEST, BATCH, STEPS = 400, 2000, 16, 400


@dataclass
class Bags:
    """Instances (ΣN, WIDTH) of bags of these sizes, and the bags' labels."""

    instances: Tensor
    sizes: Tensor
    labels: Tensor

    def index(self) -> Tensor:
        """Bag of each instance (ΣN,)."""
        return torch.repeat_interleave(torch.arange(len(self.sizes)), self.sizes)

    def padded(self) -> tuple[Tensor, Tensor]:
        """Instances (B, longest, WIDTH) and what of it is there (B, longest)."""
        parts = torch.split(self.instances, self.sizes.tolist())
        padded = nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
        return padded, (torch.arange(padded.shape[1])[None] < self.sizes[:, None]).float()

    def some(self, chosen: np.ndarray) -> Bags:
        """Some of the bags."""
        parts = torch.split(self.instances, self.sizes.tolist())
        return Bags(torch.cat([parts[k] for k in chosen]), self.sizes[chosen], self.labels[chosen])


def draw(problem: str, count: int, rng: np.random.Generator) -> Bags:
    """Bags of one problem, half of them positive."""
    sizes = rng.integers(1, LONGEST + 1, count)
    labels = rng.random(count) < 0.5
    parts = []
    for size, positive in zip(sizes, labels, strict=True):
        if problem == "witness":
            kinds = np.arange(size) < positive
        else:
            kinds = rng.random(size) < (rng.uniform(0.2, 0.6) if positive else rng.uniform(0, 0.2))
        parts.append(rng.normal(size=(size, WIDTH)) + 2.5 * kinds[:, None] * (np.arange(WIDTH) < 4))
    return Bags(torch.tensor(np.concatenate(parts), dtype=torch.float32), torch.tensor(sizes), torch.tensor(labels, dtype=torch.float32))


class Ours(nn.Module):
    """A pool of m2net and a linear answer."""

    def __init__(self, pool: str) -> None:
        super().__init__()
        self.pool, self.answer = BAG_POOLS[pool](WIDTH), nn.Linear(WIDTH, 1)

    def forward(self, bags: Bags) -> Tensor:
        """Logits (B,)."""
        return self.answer(self.pool(bags.instances, bags.index(), len(bags.sizes))[0])[:, 0]


class Theirs(nn.Module):
    """A model of torchmil."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, bags: Bags) -> Tensor:
        """Logits (B,)."""
        logits: Tensor = self.model(*bags.padded())
        return logits


MODELS: dict[str, Callable[[], nn.Module]] = {
    "m2net mean": lambda: Ours("mean"),
    "m2net max": lambda: Ours("max"),
    "m2net top": lambda: Ours("top"),
    "m2net gated_attention": lambda: Ours("gated_attention"),
    "torchmil ABMIL, gated": lambda: Theirs(ABMIL((WIDTH,), att_dim=64, gated=True)),
    "m2net transformer": lambda: Ours("transformer"),
    "torchmil TransformerABMIL": lambda: Theirs(
        TransformerABMIL(
            (WIDTH,), pool_att_dim=64, pool_gated=True, transf_att_dim=128, transf_n_layers=2, transf_n_heads=4, transf_add_self=False
        )
    ),
}


def batches(bags: Bags, rng: np.random.Generator) -> Iterator[Bags]:
    """What each step is trained on."""
    for _ in range(STEPS):
        yield bags.some(rng.choice(len(bags.sizes), BATCH, replace=False))


def judge(name: str, problem: str, seed: int) -> tuple[float, float]:
    """AUC on fresh bags, and seconds a step of training."""
    rng = np.random.default_rng([seed, len(problem)])
    train, test = draw(problem, TRAIN, rng), draw(problem, TEST, rng)
    torch.manual_seed(seed)
    model = MODELS[name]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.002, weight_decay=0.01)
    given = list(batches(train, rng))
    start = time.perf_counter()
    for batch in given:
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(batch), batch.labels).backward()
        optimizer.step()
    seconds = (time.perf_counter() - start) / STEPS
    with torch.no_grad():
        scores = torch.cat([model.eval()(test.some(np.arange(k, k + 100))) for k in range(0, TEST, 100)])
    return float(roc_auc_score(test.labels.numpy(), scores.numpy())), seconds


def main() -> None:
    """Judge every model, print, and write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=5)
    given = options.parse_args()
    print(f"{'':28}{'witness: AUC':>24}{'share: AUC':>24}{'ms a step':>12}")
    table = []
    for name in MODELS:
        cells, times = [], []
        for problem in ("witness", "share"):
            found = [judge(name, problem, seed) for seed in range(given.seeds)]
            values = [value for value, _ in found]
            times += [1000 * seconds for _, seconds in found]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
            seen = {"mean": np.mean(values), "lowest": min(values), "highest": max(values)}
            table.append({"model": name, "problem": problem} | {f"auc_{of}": f"{v:.4f}" for of, v in seen.items()} | {"seeds": given.seeds})
        print(f"{name:28}{cells[0]:>24}{cells[1]:>24}{np.median(times):>12.1f}", flush=True)
    write_table(OUT, table)
    print(OUT)


if __name__ == "__main__":
    main()
