"""Synthetic tumors in CT, and what they are worth.

The nouns and the few verbs of the Python API; each is imported when first used, so `import synthoma` is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from synthoma.cases import Case, Lesion, find_lesions
    from synthoma.errors import SynthomaError
    from synthoma.reading import open_dataset, read_case
    from synthoma.recipe import read_recipe
    from synthoma.synthesis.drawing import complete_plan
    from synthoma.synthesis.pipeline import replay, synthesize
    from synthoma.synthesis.plan import draw_plans
    from synthoma.synthesis.recipe import SynthesisRecipe
    from synthoma.synthesis.tumor import Generator, Tumor, TumorPlan
    from synthoma.volume import Box, Geometry, Volume

_HOMES = {
    "Box": "volume",
    "Geometry": "volume",
    "Volume": "volume",
    "Case": "cases",
    "Lesion": "cases",
    "find_lesions": "cases",
    "SynthomaError": "errors",
    "read_recipe": "recipe",
    "read_case": "reading",
    "open_dataset": "reading",
    "replay": "synthesis.pipeline",
    "synthesize": "synthesis.pipeline",
    "complete_plan": "synthesis.drawing",
    "Generator": "synthesis.tumor",
    "Tumor": "synthesis.tumor",
    "TumorPlan": "synthesis.tumor",
    "SynthesisRecipe": "synthesis.recipe",
    "draw_plans": "synthesis.plan",
}

__all__ = [
    "Box",
    "Case",
    "Generator",
    "Geometry",
    "Lesion",
    "SynthesisRecipe",
    "SynthomaError",
    "Tumor",
    "TumorPlan",
    "Volume",
    "complete_plan",
    "draw_plans",
    "find_lesions",
    "open_dataset",
    "read_case",
    "read_recipe",
    "replay",
    "synthesize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'synthoma' has no attribute {name!r}")
    return getattr(importlib.import_module(f"synthoma.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
