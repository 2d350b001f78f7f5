"""Public data sets' own folder layouts to manifests."""

from m2net.recipes.mosmed import mosmed

RECIPES = {"mosmed": mosmed}
"""Recipes by name: each takes the data set's folder and the manifest to write, and returns the number of studies."""

__all__ = ["RECIPES", "mosmed"]
