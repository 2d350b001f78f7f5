"""A study as the network wants it: prepared store, instances, transforms, collation, LightningDataModule."""

from m2net.bags.cutting import cut_bag, join
from m2net.bags.dataset import BagDataset, EpochSampler, bag_targets, severity_target
from m2net.bags.inputs import InputSpec, Normalise, View
from m2net.bags.prepared import Prepared, prepare_judged, prepare_volume, to_source_grid
from m2net.bags.sampling import Cut, cover, evenly, full_cut, full_slices, random_cut, random_slices, sample
from m2net.bags.store import Store
from m2net.bags.transforms import Augmentation, add_coordinates, apply_window, to_input

__all__ = [
    "Augmentation",
    "BagDataset",
    "Cut",
    "EpochSampler",
    "InputSpec",
    "Normalise",
    "Prepared",
    "Store",
    "View",
    "add_coordinates",
    "apply_window",
    "bag_targets",
    "cover",
    "cut_bag",
    "evenly",
    "full_cut",
    "full_slices",
    "join",
    "prepare_judged",
    "prepare_volume",
    "random_cut",
    "random_slices",
    "sample",
    "severity_target",
    "to_input",
    "to_source_grid",
]  # fmt: skip
