"""Generators by name: imported, and built once per process, when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from functools import lru_cache

from synthoma.errors import RecipeError
from synthoma.synthesis.tumor import Generator

GENERATORS = {"rules": "synthoma.synthesis.generators.rules.rules:Rules"}


def open_generator(name: str, device: str = "cpu", allowed: Collection[str] = ()) -> Generator:
    """The generator of this name; one instance per process, name and device.

    allowed: names of the form `module:Class` that may be imported, since the user wrote them: a recipe's own, and
    those of `--allow-module`. A name that comes from a manifest or a model imports nothing of its own. Raises
    `RecipeError` that lists the known names.
    """
    if name not in GENERATORS and ":" not in name:
        raise RecipeError(f"no generator {name!r}", expected=f"one of {', '.join(GENERATORS)}, or module:Class")
    if name not in GENERATORS and name not in allowed:
        raise RecipeError(
            f"the generator {name} is code that a file asks for, and is not run",
            expected=f"one of {', '.join(GENERATORS)}",
            fix=f"look at that code, then say --allow-module {name}",
        )
    return _built(name, device)


@lru_cache(maxsize=8)
def _built(name: str, device: str) -> Generator:
    module, _, kind = GENERATORS.get(name, name).partition(":")
    try:
        found: Generator = getattr(importlib.import_module(module), kind)(device)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"the generator {name} cannot be loaded", found=str(error)) from error
    return found
