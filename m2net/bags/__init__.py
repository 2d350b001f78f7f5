"""A study as the network wants it: prepared store, instances, transforms, collation, LightningDataModule."""

from m2net.bags.cutting import cut_bag, join
from m2net.bags.dataset import BagDataset, EpochSampler, bag_targets, severity_target
from m2net.bags.inputs import InputSpec
from m2net.bags.prepared import Prepared, prepare_volume, to_source_grid
from m2net.bags.sampling import Cut, full_cut, random_cut
from m2net.bags.store import Store
from m2net.bags.transforms import Augmentation, add_coordinates, apply_window, to_input

__all__ = [
    "Augmentation", "BagDataset", "Cut", "EpochSampler", "InputSpec", "Prepared", "Store", "add_coordinates", "apply_window",
    "bag_targets", "cut_bag", "full_cut", "join", "prepare_volume", "random_cut", "severity_target", "to_input", "to_source_grid",
]  # fmt: skip
