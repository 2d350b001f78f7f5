"""A study as the network wants it: prepared store, instances, transforms, collation, LightningDataModule."""

from m2net.bags.cutting import cut_bag, join
from m2net.bags.dataset import BagDataset, EpochSampler, bag_targets, diagnoses, severity_target
from m2net.bags.inputs import InputSpec, Normalise, View
from m2net.bags.prepared import Prepared, prepare_volume, to_source_grid
from m2net.bags.sampling import FULL_CUTS, RANDOM_CUTS, Cut, full_cut, full_slices, random_cut, random_slices
from m2net.bags.store import Store
from m2net.bags.transforms import Augmentation, add_coordinates, apply_window, to_input

__all__ = [
    "FULL_CUTS",
    "RANDOM_CUTS",
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
    "cut_bag",
    "diagnoses",
    "full_cut",
    "full_slices",
    "join",
    "prepare_volume",
    "random_cut",
    "random_slices",
    "severity_target",
    "to_input",
    "to_source_grid",
]  # fmt: skip
