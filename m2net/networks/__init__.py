"""nn.Modules only: encoders, decoders, pooling, heads, M2Net."""

from m2net.networks.bag_pools import BAG_POOLS
from m2net.networks.heads import DenseHead, Features, Head, HierarchicalHead, PooledHead
from m2net.networks.lobes import LobeAwareHead
from m2net.networks.m2net import DECODERS, ENCODERS, HEADS, M2Net
from m2net.networks.m2unet import M2UNetDecoder, M2UNetEncoder
from m2net.networks.pooling import ConceptPooling
from m2net.networks.registry import build
from m2net.networks.residual import GridDecoder, ResidualEncoder
from m2net.networks.scoremaps import ScoreMapHead
from m2net.networks.smp import SmpEncoder
from m2net.networks.vgg import HuEncoder

__all__ = [
    "BAG_POOLS",
    "DECODERS",
    "ENCODERS",
    "HEADS",
    "ConceptPooling",
    "DenseHead",
    "Features",
    "GridDecoder",
    "Head",
    "HierarchicalHead",
    "HuEncoder",
    "LobeAwareHead",
    "M2Net",
    "M2UNetDecoder",
    "M2UNetEncoder",
    "PooledHead",
    "ResidualEncoder",
    "ScoreMapHead",
    "SmpEncoder",
    "build",
]  # fmt: skip
