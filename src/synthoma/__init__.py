"""Synthetic tumors in CT, and what they are worth.

The nouns and the few verbs of the Python API. The verbs that work on whole data sets are those of the command:
`synthesize`, `replay`, `follow`, `measure`, `train`, `segment`, `evaluate`, `compare`, `scale`. Each name is imported
when it is first used, so `import synthoma` is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from synthoma.cases import Case, Lesion, find_lesions
    from synthoma.commands.following import follow
    from synthoma.commands.measuring import measure
    from synthoma.commands.results import compare, evaluate
    from synthoma.commands.scans import segment
    from synthoma.commands.studies import scale
    from synthoma.commands.tumors import replay, synthesize
    from synthoma.errors import SynthomaError
    from synthoma.learning.models import load_model
    from synthoma.reading import open_dataset, read_case
    from synthoma.recipe import read_recipe
    from synthoma.runs import open_run, read_run
    from synthoma.synthesis.drawing import complete_plan
    from synthoma.synthesis.pipeline import insert_tumors, replay_plans
    from synthoma.synthesis.plan import draw_plans
    from synthoma.synthesis.recipe import SynthesisRecipe
    from synthoma.synthesis.tumor import Generator, Tumor, TumorPlan
    from synthoma.training.segmentation import train
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
    "open_run": "runs",
    "read_run": "runs",
    "insert_tumors": "synthesis.pipeline",
    "replay_plans": "synthesis.pipeline",
    "draw_plans": "synthesis.plan",
    "complete_plan": "synthesis.drawing",
    "Generator": "synthesis.tumor",
    "Tumor": "synthesis.tumor",
    "TumorPlan": "synthesis.tumor",
    "SynthesisRecipe": "synthesis.recipe",
    "load_model": "learning.models",
    "synthesize": "commands.tumors",
    "replay": "commands.tumors",
    "follow": "commands.following",
    "measure": "commands.measuring",
    "train": "training.segmentation",
    "segment": "commands.scans",
    "evaluate": "commands.results",
    "compare": "commands.results",
    "scale": "commands.studies",
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
    "compare",
    "complete_plan",
    "draw_plans",
    "evaluate",
    "find_lesions",
    "follow",
    "insert_tumors",
    "load_model",
    "measure",
    "open_dataset",
    "open_run",
    "read_case",
    "read_recipe",
    "read_run",
    "replay",
    "replay_plans",
    "scale",
    "segment",
    "synthesize",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'synthoma' has no attribute {name!r}")
    return getattr(importlib.import_module(f"synthoma.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
