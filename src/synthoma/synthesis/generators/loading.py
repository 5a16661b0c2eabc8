"""Generators by name: imported, and built once per process, when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from synthoma import disk
from synthoma.errors import RecipeError
from synthoma.synthesis.tumor import Generator

GENERATORS = {
    "rules": "synthoma.synthesis.generators.rules:Rules",
    "growth": "synthoma.synthesis.generators.growth.growth:Growth",
}
BOX = Path(__file__).with_name("models")  # of learned ones that come with the program
FILE = "generator.safetensors"  # in the run folder of a generator's training


def generators_in_the_box() -> tuple[str, ...]:
    """Names of the learned generators that come with the program, in order."""
    return tuple(sorted(path.stem for path in BOX.glob("*.safetensors")))


def generator_file(name: str) -> Path | None:
    """The file of a learned generator: in the box by its name, a file, or a run folder's; None for no such thing."""
    if name in generators_in_the_box():
        return BOX / f"{name}.safetensors"
    path = Path(name)
    if path.is_dir() and not (path / FILE).is_file():
        raise RecipeError(f"{name} holds no {FILE}", fix="a run has one when its training has ended")
    path = path / FILE if path.is_dir() else path
    return path if path.is_file() else None


def open_generator(name: str, device: str = "cpu", allowed: Collection[str] = ()) -> Generator:
    """The generator of this name, or of this model file; one instance per process, name and device.

    allowed: names of the form `module:Class` that may be imported, since the user wrote them: a recipe's own, and
    those of `--allow-module`. A name that comes from a manifest or a model imports nothing of its own. Raises
    `RecipeError` that lists the known names.
    """
    if name not in GENERATORS:
        path = generator_file(name)
        if path is not None:
            return _learned(path.resolve(), disk.digest(path), device)
    if name not in GENERATORS and ":" not in name:
        known = ", ".join((*GENERATORS, *generators_in_the_box()))
        raise RecipeError(f"no generator {name!r}", expected=f"one of {known}, a model file, or module:Class")
    if name not in GENERATORS and name not in allowed:
        raise RecipeError(
            f"the generator {name} is code that a file asks for, and is not run",
            expected=f"one of {', '.join(GENERATORS)}",
            fix=f"look at that code, then say --allow-module {name}",
        )
    return _built(name, device)


@lru_cache(maxsize=4)
def _learned(path: Path, digest: str, device: str) -> Generator:
    del digest  # a file that was written anew is another generator
    from synthoma.synthesis.generators.learned import LearnedGenerator

    return LearnedGenerator(path, device)


@lru_cache(maxsize=8)
def _built(name: str, device: str) -> Generator:
    module, _, kind = GENERATORS.get(name, name).partition(":")
    try:
        found: Generator = getattr(importlib.import_module(module), kind)(device)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"the generator {name} cannot be loaded", found=str(error)) from error
    return found
