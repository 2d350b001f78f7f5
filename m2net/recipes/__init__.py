"""Public data sets' own folder layouts, other programs' lists and a hospital's folders to manifests."""

from m2net.recipes.ct_pictures import cc_ccii, covid_ct
from m2net.recipes.ct_volumes import covid19_ct_seg, covid_ct_md, luna16_lobes, stoic2021
from m2net.recipes.folders import folders
from m2net.recipes.importers import monai, nnunet
from m2net.recipes.mosmed import mosmed
from m2net.recipes.radiographs import cohen, covid_qu_ex, qata_cov19

RECIPES = {
    "mosmed": mosmed, "stoic2021": stoic2021, "covid19_ct_seg": covid19_ct_seg, "cc_ccii": cc_ccii, "covid_ct_md": covid_ct_md,
    "covid_ct": covid_ct, "luna16_lobes": luna16_lobes, "qata_cov19": qata_cov19, "covid_qu_ex": covid_qu_ex, "cohen": cohen,
    "nnunet": nnunet, "monai": monai, "folders": folders,
}  # fmt: skip
"""Recipes by name: each takes the data set's folder and the manifest to write, and returns the number of studies."""

__all__ = ["RECIPES"]
