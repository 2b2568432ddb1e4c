"""`model_type` -> what the tiny checkpoint of the family is made of."""

from family_recipes import gemma, grids, others, squares
from family_recipes.recipe import Recipe, special_tokens

RECIPES: dict[str, Recipe] = {**squares.RECIPES, **grids.RECIPES, **gemma.RECIPES, **others.RECIPES}

_NO_RECIPE = "no tiny checkpoint has been made"
NOT_TRIED = {
    "apertus1p5": _NO_RECIPE,
    "deepseek_ocr2": _NO_RECIPE,
    "dots3_note": _NO_RECIPE,
    "fast_vlm": "its tower has no tiny form in timm",
    "fuyu": _NO_RECIPE,
    "inkling_mm_model": _NO_RECIPE,
    "muse_spark": _NO_RECIPE,
    "nemotron_h_omni": _NO_RECIPE,
    "pp_chart2table": _NO_RECIPE,
    "unlimited_ocr": _NO_RECIPE,
}
"""`model_type` -> why it has no tiny checkpoint."""

__all__ = ["NOT_TRIED", "RECIPES", "Recipe", "special_tokens"]
