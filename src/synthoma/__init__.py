"""Synthetic tumors in CT, and what they are worth.

The nouns and the few verbs of the Python API; each is imported when first used, so `import synthoma` is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from synthoma.cases import Case, Lesion, find_lesions
    from synthoma.errors import SynthomaError
    from synthoma.reading import open_dataset, read_case
    from synthoma.recipe import read_recipe
    from synthoma.synthesis.pipeline import synthesize
    from synthoma.synthesis.plan import draw_plans
    from synthoma.synthesis.recipe import SynthesisRecipe
    from synthoma.volume import Box, Geometry, Volume

_HOMES = {
    "Box": "volume",
    "Geometry": "volume",
    "Volume": "volume",
    "Case": "cases",
    "Lesion": "cases",
    "find_lesions": "cases",
    "SynthomaError": "errors",
    "read_recipe": "recipes",
    "read_case": "synthesis.reading",
    "open_dataset": "synthesis.reading",
    "synthesize": "synthesis.pipeline",
    "SynthesisRecipe": "synthesis.recipe",
    "draw_plans": "synthesis.plan",
}

__all__ = [
    "Box",
    "Case",
    "Geometry",
    "Lesion",
    "SynthesisRecipe",
    "SynthomaError",
    "Volume",
    "draw_plans",
    "find_lesions",
    "open_dataset",
    "read_case",
    "read_recipe",
    "synthesize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'synthoma' has no attribute {name!r}")
    return getattr(importlib.import_module(f"synthoma.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
