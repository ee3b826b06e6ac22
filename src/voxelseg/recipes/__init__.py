"""Recipes: the published trainings of the four papers as functions that return every value, and where it is from.

A name, as in `find_recipe("mednext_s_k3_btcv")`, stands for a call of its paper's function, here
`mednext.mednext("btcv", size="s", kernel=3)`.
"""

from voxelseg.errors import ConfigError, did_you_mean
from voxelseg.recipes import e2enet, logonet, mednext, uxnet
from voxelseg.recipes.recipe import Difference, Recipe, Score, Source

__all__ = ["RECIPES", "Difference", "Recipe", "Score", "Source", "find_recipe"]

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (*mednext.RECIPES, *uxnet.RECIPES, *e2enet.RECIPES, *logonet.RECIPES)
}
"""Every recipe by its name."""


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; ConfigError, with the closest match, for an unknown one."""
    if name not in RECIPES:
        raise ConfigError(
            f"unknown recipe {name!r}{did_you_mean(name, RECIPES)}. `voxelseg recipes` lists all {len(RECIPES)}."
        )
    return RECIPES[name]
