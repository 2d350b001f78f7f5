"""Runs that were trained apart as one model: an ensemble in one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m2net.errors import CheckpointError, ConfigError
from m2net.networks import several
from m2net.training.checkpoint import file_hash, load_model
from m2net.training.loading import CHECKPOINT_MARK, hyper_parameters, read_checkpoint


def fuse(paths: list[Path], out: Path) -> None:
    """Write a checkpoint whose answer is the mean of those of several runs (score maps averaged as logits, depth by depth).

    Args:
        paths: checkpoints of runs with the same network, tasks and input; their heads are ``score_maps`` on the encoder.
        out: file to write; it is as good as any checkpoint for test, explain and predict.

    Raises:
        CheckpointError: not one of m2net's, or the weights do not fit.
        ConfigError: fewer than two, runs that differ, or a network that cannot be fused.
    """
    if len(paths) < 2:
        raise ConfigError(f"{len(paths)} checkpoint", expected="at least two to fuse")
    read = [read_checkpoint(path) for path in paths]
    first = hyper_parameters(read[0])
    for path, other in zip(paths[1:], read[1:], strict=True):
        theirs = hyper_parameters(other)
        if changed := [key for key in ("network", "tasks", "input", "mirror") if theirs.get(key) != first.get(key)]:
            raise ConfigError(f"{path} has another {', '.join(changed)} than {paths[0]}", expected="runs of one configuration")
    stages = _stages(paths[0], first)
    values = dict(first)
    values["network"] = {**first["network"], "encoder": {"name": several.NAME, "of": first["network"]["encoder"], "members": len(paths)}}
    values["tasks"] = {task: _wider(parts, stages, len(paths)) for task, parts in first["tasks"].items()}
    state: dict[str, Tensor] = {}
    for member, checkpoint in enumerate(read):
        for name, value in checkpoint["state_dict"].items():
            state[_placed(name, member, first["tasks"])] = value
    members = [
        {"file": path.name, "sha256": file_hash(path), "trained_on": checkpoint[CHECKPOINT_MARK].get("trained_on", {})}
        for path, checkpoint in zip(paths, read, strict=True)
    ]
    about = {**read[0][CHECKPOINT_MARK], "fused": members, "calibration": {}}
    made = {name: read[0][name] for name in _KEPT if name in read[0]}
    made |= {"state_dict": state, "hyper_parameters": values, CHECKPOINT_MARK: about}
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    try:
        torch.save(made, partial)
        load_model(partial)
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)


_KEPT = ("epoch", "global_step", "pytorch-lightning_version", "hparams_name", "datamodule_hparams_by_name", "datamodule_hyper_parameters")
"""What Lightning asks of a checkpoint, beside weights and settings; not its loops, optimizers and averages, which are one run's own."""


def _stages(path: Path, values: dict[str, Any]) -> int:
    """Maps of one member's encoder.

    Raises:
        ConfigError: a part that cannot be fused.
    """
    if values["network"].get("decoder") or values["network"]["encoder"]["name"] == several.NAME:
        raise ConfigError(f"{path} has a decoder, or is an ensemble already", expected="encoders with score_maps heads")
    for task, parts in values["tasks"].items():
        if parts.get("head") and parts["head"]["name"] != "score_maps":
            raise ConfigError(f"the head of {task} in {path} is {parts['head']['name']}", expected="score_maps: its depths can be averaged")
    return len(load_model(path).network.encoder.channels)  # type: ignore[arg-type]


def _wider(parts: dict[str, Any], stages: int, members: int) -> dict[str, Any]:
    """A task whose head reads the same depths of every member."""
    if not parts.get("head"):
        return parts
    depths = sorted(parts["head"].get("depths", (3, 4, 5)))
    return {**parts, "head": {**parts["head"], "depths": [depth + stages * k for k in range(members) for depth in depths]}}


def _placed(name: str, member: int, tasks: dict[str, Any]) -> str:
    """Where a member's tensor lies in the ensemble.

    Raises:
        CheckpointError: a tensor without a place.
    """
    if name.startswith("network.encoder."):
        return name.replace("network.encoder.", f"network.encoder.members.{member}.", 1)
    for task, parts in tasks.items():
        prefix = f"network.heads.{task}.score."
        if name.startswith(prefix):
            level, _, rest = name.removeprefix(prefix).partition(".")
            return f"{prefix}{int(level) + member * len(parts['head'].get('depths', (3, 4, 5)))}.{rest}"
    if name.startswith(("network.heads.", "network.decoder.")):
        raise CheckpointError(f"{name} has no place in an ensemble", expected="encoders with score_maps heads, no attention over slices")
    return name
