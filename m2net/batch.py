"""BagBatch and Output: the contract between bags, networks and objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class BagBatch:
    """B studies as bags of 2-D instances, the instances of all bags in one flat row.

    N_b instances belong to bag b; ΣN is their sum. All instances of a batch have one modality and one size H x W.
    In-plane axes are those of the study in LPS: rows grow posteriorly (in a radiograph inferiorly), columns grow to the patient's left.

    Attributes:
        instances: (ΣN, C, H, W); int16 as stored until the input transform turns it into float32 channels.
        bag_index: (ΣN,) int64, the bag each instance belongs to, non-decreasing.
        position: (ΣN, 3) float32, x, y, z of the instance's centre, in-plane in the body's box, z in the lungs' box,
            all in [-1, 1]; +x left, +y posterior, +z superior. Unknown axes are 0.
        position_known: (ΣN, 3) bool, whether that axis of ``position`` is known.
        position_step: (ΣN, 2, 3) float32, change of ``position`` for one pixel along a row step and a column step.
        corner: (ΣN, 3) int64, z, y, x of the instance's first pixel in store voxels; may be negative (padding).
        dense: per task (ΣN, H, W) int64 with -1 = unlabelled or owned by another instance.
        bag_targets: per task (B,) float32 with NaN = unlabelled, or (B, classes) bool sets with all False = unlabelled; and ``patient_id``,
            (B,) int64, equal for studies of one patient.
        uncovered: per task (B, classes) int64, labelled voxels of a study that no instance covers (evaluation only).
        study_ids: B study identifiers.
        draws: (B,) int64 keys from which every random draw for that bag is derived.
        side: (ΣN,) int64, store pixels along each side of the instance (H where it is not resized).
        owned: (ΣN, H, W) bool or None; in full coverage, the pixels of the image that this instance stands for (each
            voxel has one); padding belongs to none.
    """

    instances: Tensor
    bag_index: Tensor
    position: Tensor
    position_known: Tensor
    position_step: Tensor
    corner: Tensor
    side: Tensor
    study_ids: list[str]
    draws: Tensor
    dense: dict[str, Tensor] = field(default_factory=dict)
    bag_targets: dict[str, Tensor] = field(default_factory=dict)
    uncovered: dict[str, Tensor] = field(default_factory=dict)
    owned: Tensor | None = None

    @property
    def num_bags(self) -> int:
        """Number of bags B."""
        return len(self.study_ids)

    @property
    def num_instances(self) -> int:
        """Number of instances ΣN."""
        return int(self.instances.shape[0])

    def map(self, function: Callable[[Tensor], Tensor]) -> BagBatch:
        """A copy with ``function`` applied to every tensor."""
        changes: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changes[item.name] = function(value)
            elif isinstance(value, dict):
                changes[item.name] = {key: function(tensor) for key, tensor in value.items()}
        return replace(self, **changes)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> BagBatch:
        """A copy on ``device``; Lightning calls this."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))


@dataclass
class Output:
    """What a head says about a batch.

    Attributes:
        logits: (B, K) float32 for a bag head; (ΣN, K, H, W) for a dense head, in the precision it was computed in.
        instance_weight: (ΣN,) in [0, 1] or None; the share each instance had in its bag's answer, summing to 1 a bag.
        deep: (D, B, K) logits at each depth of a head that is supervised at several, or None.
        instance_logits: (ΣN, K), each instance judged by itself, or None.
        lobe_logits: (B, 5, K), each lobe judged by itself in the order of the lobe codes, NaN where a lobe is absent, or None.
    """

    logits: Tensor
    instance_weight: Tensor | None = None
    deep: Tensor | None = None
    instance_logits: Tensor | None = None
    lobe_logits: Tensor | None = None

    def mean_with(self, other: Output) -> Output:
        """Mean of two answers about the same bags, field by field."""

        def mean(a: Tensor | None, b: Tensor | None) -> Tensor | None:
            return None if a is None or b is None else (a + b) / 2

        return Output(
            (self.logits + other.logits) / 2,
            mean(self.instance_weight, other.instance_weight),
            mean(self.deep, other.deep),
            mean(self.instance_logits, other.instance_logits),
            mean(self.lobe_logits, other.lobe_logits),
        )


def telling_weights(outputs: Mapping[str, Output]) -> Tensor | None:
    """The first task's shares of the instances (ΣN,); None where no task has any, or all are alike and none stands out."""
    weights = next((o.instance_weight for o in outputs.values() if o.instance_weight is not None), None)
    return None if weights is None or bool((weights == weights[0]).all()) else weights
