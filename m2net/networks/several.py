"""Several encoders side by side, for ensembles that are one network and one checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from m2net.errors import ConfigError
from m2net.networks.registry import build


class SeveralEncoders(nn.Module):
    """Encoders of one kind that read the same instances; the maps of the first, then those of the second, and so on.

    A ``score_maps`` head on depths of all of them is an ensemble: its loss is the mean over the depths, so that every member learns for
    itself, and its answer is their mean. ``m2net fuse`` makes one of runs that were trained apart.
    """

    def __init__(self, in_channels: int, of: Mapping[str, Any], members: int, encoders: Mapping[str, Callable[..., nn.Module]]) -> None:
        """Build.

        Args:
            in_channels: of an instance.
            of: the encoder, name and arguments.
            members: how many of it.
            encoders: by name.

        Raises:
            ConfigError: fewer than two members, or several of several.
        """
        super().__init__()
        if members < 2 or not isinstance(of, Mapping) or of.get("name") == NAME:
            raise ConfigError(f"{members} members of {of}", expected="at least 2 of one encoder, by name and arguments")
        self.members = nn.ModuleList(build(encoders, of, "encoder of a member", in_channels) for _ in range(members))
        self.stages_each = len(self.members[0].channels)  # type: ignore[arg-type]
        self.channels = tuple(width for member in self.members for width in member.channels)  # type: ignore[union-attr]

    @property
    def saving(self) -> bool:
        """Whether the members recompute activations in the backward pass."""
        return bool(self.members[0].saving)

    @saving.setter
    def saving(self, value: bool) -> None:
        for member in self.members:
            member.saving = value  # type: ignore[assignment]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) to the members' maps, end to end."""
        return [stage for member in self.members for stage in member(images)]


NAME = "several"
