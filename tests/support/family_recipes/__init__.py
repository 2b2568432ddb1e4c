"""`model_type` -> what the tiny checkpoint of the family is made of."""

from family_recipes import gemma, grids, others, squares
from family_recipes.recipe import Recipe, special_tokens

RECIPES: dict[str, Recipe] = {**squares.RECIPES, **grids.RECIPES, **gemma.RECIPES, **others.RECIPES}

__all__ = ["RECIPES", "Recipe", "special_tokens"]
