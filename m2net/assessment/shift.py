"""How new data differ from those a model was trained on: values, noise, spacing, case mix, and what they stir in the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from m2net.bags import Store, cut_bag, evenly, sample, to_input
from m2net.studies import Study
from m2net.training import M2NetModule

_MOST_STUDIES = 24
_MOST_INSTANCES = 16


@dataclass(frozen=True)
class Shift:
    """New data against a model's training data.

    Attributes:
        before: how the training data looked (``bags.look``), None where the checkpoint does not say.
        now: how the new data look.
        histogram_distance: share of the values within the lungs that would have to move, 0 to 1 (total variation); None with ``before``.
        drift: of each stage of the encoder, how far the mean of its features moved, in standard deviations of the training data, median
            over channels; empty where the encoder keeps no batch statistics.
    """

    before: dict[str, Any] | None
    now: dict[str, Any]
    histogram_distance: float | None
    drift: list[float]


def shift_of(module: M2NetModule, before: dict[str, Any] | None, now: dict[str, Any], store: Store, studies: Sequence[Study]) -> Shift:
    """Compare.

    Args:
        module: the model as it came.
        before: its checkpoint's look, or None.
        now: look of the new studies.
        store: where these are prepared.
        studies: the new studies.
    """
    distance = None
    if before and before.get("ends") == now.get("ends") and "histogram" in before:
        distance = float(np.abs(np.array(before["histogram"]) - np.array(now["histogram"])).sum() / 2)
    return Shift(before, now, distance, feature_drift(module, store, studies))


@torch.no_grad()
def feature_drift(module: M2NetModule, store: Store, studies: Sequence[Study]) -> list[float]:
    """Median over channels of |mean of new data - running mean| / running spread, at the encoder's batch norms, gathered in five stages."""
    layers = [layer for layer in module.network.encoder.modules() if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats]
    if not layers or not studies:
        return []
    sums: dict[int, Tensor] = {}
    count = 0

    def watch(place: int) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sums[place] = sums.get(place, torch.zeros(())) + inputs[0].float().mean((2, 3)).sum(0).cpu()

        return hook

    hooks = [layer.register_forward_pre_hook(watch(place)) for place, layer in enumerate(layers)]
    module.eval()
    try:
        for k in evenly(len(studies), _MOST_STUDIES).tolist():
            prepared = store.open(studies[k])
            cut = sample(prepared, module.spec, _MOST_INSTANCES, np.random.default_rng(k))  # as training bags are drawn
            batch = to_input(cut_bag(prepared, cut, module.spec, "study", 0), module.spec)
            module.network.encoder(batch.instances.to(module.device).contiguous(memory_format=torch.channels_last))
            count += batch.num_instances
    finally:
        for hook in hooks:
            hook.remove()
    each = []
    for place, layer in enumerate(layers):
        if place not in sums:  # a layer that the network does not use
            continue
        assert layer.running_mean is not None
        assert layer.running_var is not None
        moved = (sums[place] / count - layer.running_mean.cpu()).abs() / (layer.running_var.cpu() + layer.eps).sqrt()
        each.append(float(moved.median()))
    return [float(np.mean(part)) for part in np.array_split(each, min(5, len(each)))]
