"""Weights of an earlier run as the start of a new one, matched by name, shape and meaning, and always told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m2net.errors import CheckpointError
from m2net.networks import M2Net

PARTS = ("encoder", "decoder", "heads")


@dataclass(frozen=True)
class Meaning:
    """What a network's input channels and each task's answers stand for."""

    channels: Sequence[str]
    answers: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Transfer:
    """What became of the weights, by tensor name.

    Attributes:
        loaded: taken over whole.
        adapted: taken over where a class or a channel has the same name; other classes start anew, other channels silent.
        skipped: of the checkpoint, without a place in the new model or not asked for.
        fresh: of the new model, which start anew.
    """

    loaded: list[str]
    adapted: list[str]
    skipped: list[str]
    fresh: list[str]

    def __str__(self) -> str:
        """One line."""
        fitted = f", {len(self.adapted)} adapted by name of class or channel" if self.adapted else ""
        return f"{len(self.loaded)} tensors taken over{fitted}, {len(self.skipped)} of the checkpoint left, {len(self.fresh)} start anew"

    def plain(self) -> dict[str, list[str]]:
        """For a report."""
        return asdict(self)


def take_over(
    network: M2Net, checkpoint: Mapping[str, Any], path: Path, parts: Sequence[str], before: Meaning, now: Meaning
) -> Transfer:  # fmt: skip
    """Copy the weights of a checkpoint wherever name and shape agree, class by class and channel by channel where these changed.

    Args:
        network: the new network.
        checkpoint: as ``read_checkpoint`` gives it.
        path: where it lies, for messages.
        parts: of the network: encoder, decoder, heads.
        before: what channels and answers stand for in the checkpoint.
        now: what they stand for in the new network.

    Raises:
        CheckpointError: a tensor of the encoder has no counterpart.
    """
    saved = {k.removeprefix("network."): v for k, v in checkpoint["state_dict"].items() if k.startswith("network.")}
    own = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    axes = network.class_axes() | network.channel_axes()
    taken: dict[str, Tensor] = {}
    adapted = []
    for name, mine in own.items():
        part, task, *_ = name.split(".")
        theirs = saved.get(name)
        if theirs is None or part not in parts:
            continue
        old, new = (before.channels, now.channels) if part == "encoder" else (before.answers.get(task, ()), now.answers.get(task, ()))
        if name not in axes or list(old) == list(new):
            if theirs.shape == mine.shape:
                taken[name] = theirs
        elif (fitted := _by_name(mine, theirs, axes[name], old, new, silent=part == "encoder")) is not None:
            taken[name] = fitted
            adapted.append(name)
    missing = [name for name in own if name.startswith("encoder.") and name not in taken]
    if "encoder" in parts and missing:
        shown = f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        raise CheckpointError(
            f"{len(missing)} of the new encoder's tensors are not in {path} ({shown})", expected="a checkpoint with the same encoder",
            remedy="Check network.encoder, or leave model.start_from out",
        )  # fmt: skip
    network.load_state_dict(taken, strict=False)
    left = [k for k in saved if k not in taken and not k.endswith("num_batches_tracked")]
    return Transfer(sorted(set(taken) - set(adapted)), sorted(adapted), sorted(left), sorted(set(own) - set(taken)))


def _by_name(
    mine: Tensor, theirs: Tensor, axes: tuple[int, ...], old: Sequence[str], new: Sequence[str], *, silent: bool
) -> Tensor | None:  # fmt: skip
    """``mine`` with the slices of ``theirs`` whose names both have; None if none is, or the other axes differ."""
    both = [name for name in new if name in old]
    same = mine.dim() == theirs.dim() and all(
        theirs.shape[d] == (len(old) if d in axes else mine.shape[d]) for d in range(mine.dim())
    )  # fmt: skip
    if not both or not same:
        return None

    def places(names: Sequence[str], shape: torch.Size) -> tuple[Tensor, ...]:
        lists = [torch.tensor([names.index(b) for b in both]) if d in axes else torch.arange(size) for d, size in enumerate(shape)]
        return torch.meshgrid(*lists, indexing="ij")

    fitted = torch.zeros_like(mine) if silent else mine.clone()
    fitted[places(list(new), mine.shape)] = theirs[places(list(old), theirs.shape)]
    return fitted
