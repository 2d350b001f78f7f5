"""Where a class scores: integrated gradients per depth and their joint saliency, score maps, and Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2net.networks import M2Net, ScoreMapHead

STEPS = 25  # of the integral, as published
_SMOOTH = 1.5  # standard deviation in instance pixels; the gradient of a single pixel is noise


class DepthScores(nn.Module):
    """Images to the class scores of the slices themselves, at every depth."""

    def __init__(self, network: M2Net, task: str) -> None:
        """Look through ``network`` at one task with score maps."""
        super().__init__()
        head = network.heads[task]
        assert isinstance(head, ScoreMapHead)
        self.network, self.head = network, head

    def forward(self, images: Tensor, depth: int | None = None) -> Tensor:
        """(N, C, H, W) -> (N, classes): of the depth at this place in ``head.depths``, or the mean over the depths."""
        answers = self.head.instance(self.network.features(images))
        by_depth = self.head.by_depth(answers)
        return by_depth.mean(1) if depth is None else by_depth[:, depth]


def joint_saliency(scores: DepthScores, images: Tensor, target: int, slices: int) -> Tensor:
    """minmax[(C5 + 2)(C4 + 2)(C3 + 2)] over integrated gradients C of each depth (Hu et al. 2020, published code).

    The baseline is -1 (the lowest value of the window) in the picture's channels, and the instances' own values in coordinate channels.
    Each C is the sum over the picture's channels, smoothed, and divided by its largest magnitude in the study; how the published code
    brings C to the range in which + 2 is meant was not verified. Of a head with more depths the three deepest count, as published.

    Args:
        scores: the task's scores.
        images: (N, C, H, W) network input of one study.
        target: class to explain.
        slices: number of leading channels that are picture.

    Returns:
        (N, H, W) in [0, 1], scaled over the study.
    """
    product: Tensor | None = None
    for depth in range(len(scores.head.depths))[-3:]:
        attribution = integrated_gradients(scores, images, target, slices, depth)
        scaled = attribution / attribution.abs().amax().clamp(min=1e-12)
        product = scaled + 2 if product is None else product * (scaled + 2)
    assert product is not None
    return _minmax(product)


def integrated_gradients(scores: DepthScores, images: Tensor, target: int, slices: int, depth: int | None, batch: int = 64) -> Tensor:
    """Integrated gradients of one class at one depth (N, H, W), summed over the picture's channels and smoothed."""
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(lambda x: scores(x, depth))
    parts = []
    for piece in torch.split(images, batch):
        baseline = piece.clone()
        baseline[:, :slices] = -1.0
        found = method.attribute(piece, baselines=baseline, target=target, n_steps=STEPS, internal_batch_size=max(batch, len(piece)))
        parts.append(found[:, :slices].sum(1).float().detach())
    return _smoothed(torch.cat(parts))


def score_map_saliency(scores: DepthScores, images: Tensor, target: int, slices: int) -> Tensor:
    """Mean over the depths of the class's score maps, raised to the instances' size, (N, H, W) in [0, 1]."""
    parts = []
    with torch.no_grad():
        for piece in torch.split(images, 64):
            maps = scores.head.maps(scores.network.features(piece))
            raised = [F.interpolate(m[:, target : target + 1].float(), size=images.shape[2:], mode="bilinear")[:, 0] for m in maps]
            parts.append(torch.stack(raised))
    every = torch.cat(parts, dim=1)  # (depths, N, H, W)
    return torch.stack([_minmax(one) for one in every]).mean(0)


def grad_cam(scores: DepthScores, images: Tensor, target: int, slices: int) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) on the deepest map that carries scores, (N, H, W) in [0, 1]."""
    (cam,) = _grad_cam(scores, images, target, [len(scores.head.depths) - 1])
    return cam


def grad_cam_of_depths(scores: DepthScores, images: Tensor, target: int, slices: int) -> Tensor:
    """Mean over the depths of Grad-CAM on each depth's map, (N, H, W) in [0, 1]: as fine as the score maps are."""
    return torch.stack(_grad_cam(scores, images, target, range(len(scores.head.depths)))).mean(0)


def _grad_cam(scores: DepthScores, images: Tensor, target: int, depths: Sequence[int]) -> list[Tensor]:
    """Grad-CAM of each of these depths, of the class's score at that depth."""
    parts: list[list[Tensor]] = [[] for _ in depths]
    for piece in torch.split(images, 64):
        features = scores.network.features(piece)
        features.maps = [one.detach().requires_grad_() for one in features.maps]
        by_depth = scores.head.by_depth(scores.head.instance(features))[:, :, target].sum(0)
        for cams, depth in zip(parts, depths, strict=True):
            cells = features.maps[scores.head.depths[depth] - 1]
            (gradient,) = torch.autograd.grad(by_depth[depth], cells, retain_graph=True)
            cam = F.relu((gradient.mean((2, 3), keepdim=True) * cells).sum(1, keepdim=True)).detach()
            cams.append(F.interpolate(cam.float(), size=images.shape[2:], mode="bilinear")[:, 0])
    return [_minmax(torch.cat(cams)) for cams in parts]


SALIENCY: dict[str, Callable[[DepthScores, Tensor, int, int], Tensor]] = {
    "joint": joint_saliency,
    "score_maps": score_map_saliency,
    "grad_cam": grad_cam,
    "grad_cam_depths": grad_cam_of_depths,
}
"""Ways to say where a class scores, by name."""


def _minmax(values: Tensor) -> Tensor:
    low, high = values.amin(), values.amax()
    return (values - low) / (high - low).clamp(min=1e-12)


def _smoothed(maps: Tensor) -> Tensor:
    """Gaussian smoothing of (N, H, W)."""
    reach = int(3 * _SMOOTH) + 1
    along = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-(along**2) / (2 * _SMOOTH**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(maps[:, None], [reach] * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None, :])[:, 0]
