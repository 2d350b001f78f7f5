"""nn.Modules only: encoders, decoders, pooling, heads, M2Net."""

from m2net.networks.heads import DenseHead, Features, Head, HierarchicalHead
from m2net.networks.m2net import DECODERS, ENCODERS, HEADS, M2Net
from m2net.networks.m2unet import M2UNetDecoder, M2UNetEncoder
from m2net.networks.pooling import ConceptPooling
from m2net.networks.registry import build

__all__ = [
    "DECODERS", "ENCODERS", "HEADS", "ConceptPooling", "DenseHead", "Features", "Head", "HierarchicalHead", "M2Net",
    "M2UNetDecoder", "M2UNetEncoder", "build",
]  # fmt: skip
