"""Lobe-aware pooling: instance -> lobe -> patient, with the decoder's own lobe probabilities as membership."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.networks.bag_pools import GatedAttention
from m2net.networks.heads import Features, Head, source_maps, source_width
from m2net.networks.pooling import segment_softmax, segment_sum
from m2net.vocabulary import Lobe

LOBES = len(Lobe)


def lobes_there(mass: Tensor, least: float) -> Tensor:
    """Which lobes a bag has (B, 5), from each lobe's mass (B, 5): at least ``least`` of the bag's lung; after a lobectomy it is less."""
    return mass >= least * mass.sum(1, keepdim=True).clamp(min=1e-6)


class LobeAwareHead(Head):
    """What each lobe looks like, and from the lobes what the patient has.

    Every place p of an instance n carries an embedding x_np; P(l | n, p), the lobe task's probability, says to which lobe it belongs.

        mass_nl = sum_p P(l | n, p)        e_nl = sum_p P(l | n, p) x_np / mass_nl
        v_l = sum_n w_nl e_nl, with w_nl proportional to mass_nl (mean) or to mass_nl exp(a(e_nl)) (attention)
        score of lobe l: c(v_l) + b_l;  answer: sum_l beta_l (c(v_l) + b_l), beta by attention over the lobes that are there

    A lobe with less than ``least`` of the bag's lung is absent (lobectomy, or nothing of it was sampled): it has no score and no share
    in the answer. Order, padding and chunks of instances do not matter.
    """

    needs_decoder = True

    def __init__(
        self,
        encoder_channels: Sequence[int],
        decoder_channels: int,
        classes: int,
        lobes: str = "lobes",
        source: str = "both",
        width: int = 64,
        pool: str = "mean",
        gradient: bool = True,
        least: float = 0.005,
    ) -> None:
        """Build for ``classes`` outputs.

        Args:
            encoder_channels: of the encoder's maps, finest first.
            decoder_channels: of the decoder's map.
            classes: outputs.
            lobes: task whose dense answer gives the membership.
            source: what is pooled: encoder (its deepest map), decoder (its map), or both.
            width: of an embedding.
            pool: over instances within a lobe: mean or attention.
            gradient: whether the membership is trained through; otherwise the lobe task alone shapes it.
            least: share of the bag's lung below which a lobe counts as absent.

        Raises:
            ConfigError: unknown source or pool.
        """
        super().__init__()
        if pool not in ("mean", "attention"):
            raise ConfigError(f"the pool {pool!r} is unknown", expected="mean or attention")
        self.reads, self.membership, self.source, self.gradient, self.least = (lobes,), lobes, source, gradient, least
        self.embed = nn.Sequential(nn.Conv2d(source_width(source, encoder_channels, decoder_channels), width, 1), nn.ReLU())
        self.within = GatedAttention(width) if pool == "attention" else None
        self.across = GatedAttention(width)
        self.classify = nn.Linear(width, classes)
        self.of_lobe = nn.Parameter(torch.zeros(LOBES, classes))

    @property
    def trains_decoder(self) -> bool:
        """Its map is pooled, or the membership is trained through."""
        return self.source != "encoder" or self.gradient

    def instance(self, features: Features) -> Tensor:
        """Sums of embeddings a lobe, and its mass, (N, 5 * (width + 1)), as shares of the instance's places."""
        membership = features.dense[self.reads[0]].float().softmax(1)[:, 1:]  # (N, 5, H, W)
        membership = membership if self.gradient else membership.detach()
        maps = source_maps(self.source, features)
        height, width = maps[-1].shape[2:]
        membership = F.adaptive_avg_pool2d(membership, (height, width))
        maps = [m if m.shape[2:] == maps[-1].shape[2:] else F.interpolate(m, size=(height, width)) for m in maps]
        embedded = self.embed(torch.cat(maps, dim=1)).float()
        with torch.autocast(embedded.device.type, enabled=False):  # it would round the product, and overflow in float16
            sums = torch.einsum("nlhw,nchw->nlc", membership, embedded) / (height * width)
        return torch.cat([sums, membership.mean((2, 3))[:, :, None]], dim=2).flatten(1)

    def bag(self, answers: Tensor, batch: BagBatch) -> Output:
        """Answer (B, classes), each lobe's own score (B, 5, classes) or NaN where it is absent, and what was attended to."""
        index, count = batch.bag_index, batch.num_bags
        parts = answers.reshape(len(answers), LOBES, -1)
        sums, mass = parts[..., :-1], parts[..., -1]  # (ΣN, 5, W), (ΣN, 5)
        weight = self._weights(sums, mass, index, count)  # (ΣN, 5), summing to 1 a bag and lobe
        each = sums / mass[..., None].clamp(min=1e-6)
        lobe = segment_sum((each * weight[..., None]).flatten(1), index, count).reshape(count, LOBES, -1)
        total = segment_sum(mass, index, count)
        there = lobes_there(total, self.least)
        beta = self.across.logits(lobe).masked_fill(~there, -torch.inf)
        beta = torch.where(there.any(1, keepdim=True), beta, torch.zeros_like(beta)).softmax(1)
        score = self.classify(lobe) + self.of_lobe  # (B, 5, classes)
        logits = (beta[..., None] * score).sum(1)
        share = (weight * beta[index]).sum(1).detach() if self.within is not None else None  # by mass alone it says nothing
        return Output(logits, share, lobe_logits=score.masked_fill(~there[..., None], float("nan")).detach())

    def _weights(self, sums: Tensor, mass: Tensor, index: Tensor, count: int) -> Tensor:
        logit = mass.clamp(min=1e-12).log()
        if self.within is not None:
            logit = logit + self.within.logits(sums / mass[..., None].clamp(min=1e-6))
        return torch.stack([segment_softmax(logit[:, k], index, count) for k in range(LOBES)], dim=1)
