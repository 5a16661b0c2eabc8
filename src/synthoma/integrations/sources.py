"""Where a transform's tumors come from: a recipe that draws new ones, the manifest of a synthesis, or given plans."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthoma import anatomy
from synthoma.errors import CaseError, RecipeError
from synthoma.integrations.labels import LabelScheme
from synthoma.recipe import find_recipe, make_recipe, read_recipe
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.scan import PHASE_ORGANS
from synthoma.synthesis.store.manifest import MANIFEST, Manifest, manifest_at
from synthoma.synthesis.tumor import TumorPlan


@dataclass(frozen=True)
class Bank:
    """The tumors of a manifest. path: of the file. allow_modules: generators `module:Class` that it may name."""

    path: Path
    allow_modules: tuple[str, ...] = ()

    @property
    def manifest(self) -> Manifest:
        """Read once in a process, and again when the file changes."""
        return manifest_at(self.path)

    def plans(self, case: str, seed: int) -> tuple[list[TumorPlan], str]:
        """The tumors of a case, and the digest of the scan that they were made on; seed: chooses among its copies.

        Raises `CaseError` for a case that the manifest does not know.
        """
        copies = self.manifest.copies(case)
        if not copies:
            raise CaseError(
                f"{self.path} has no plans for it",
                case=case,
                found=f"{len(self.manifest)} cases: {', '.join(self.manifest.cases[:3])}, ...",
                fix="call the case as `synthoma synthesize` did (`synthoma info DIR` lists the names)",
            )
        copy = copies[seed % len(copies)]
        return self.manifest.plans(copy), self.manifest.rows(copy)[0]["scan_digest"]


@dataclass(frozen=True)
class Plans:
    """Tumors that were drawn before. allow_modules: generators `module:Class` that they may name."""

    plans: tuple[TumorPlan, ...]
    allow_modules: tuple[str, ...] = ()


Source = SynthesisRecipe | Bank | Plans


def open_source(tumors: Source | Mapping[str, Any] | Path | str, allow_modules: Collection[str] = ()) -> Source:
    """What tumors are made from.

    tumors: a recipe, the keys of one, a recipe's TOML file or its name (`liver`, as `synthoma recipes` lists them); or
    the manifest of a synthesis, or its folder. allow_modules: generators of the form `module:Class` that a manifest may
    name. Raises `RecipeError` for what is none of them, and for a recipe with a critic, which judges when tumors are
    stored; `FileError` for a broken manifest.
    """
    if isinstance(tumors, Bank | Plans):
        return tumors
    if isinstance(tumors, Path | str) and (Path(tumors).is_dir() or Path(tumors).suffix == ".parquet"):
        path = Path(tumors).resolve()
        bank = Bank(path / MANIFEST if path.is_dir() else path, tuple(allow_modules))
        bank.manifest  # noqa: B018  # refuses what is no manifest now, not in a worker
        return bank
    if isinstance(tumors, Path | str):
        recipe = read_recipe(SynthesisRecipe, find_recipe(tumors, "synthesis"))
    elif isinstance(tumors, Mapping):
        recipe = make_recipe(SynthesisRecipe, tumors, "tumors")
    else:
        recipe = tumors
    if recipe.critic.models:
        raise RecipeError(
            "a critic judges when tumors are stored, not while a network trains",
            found=f"critic.model = {', '.join(recipe.critic.models)}",
            fix="`synthoma synthesize --write plans` with this recipe, then give its folder instead of the recipe",
        )
    return recipe


def fitted(source: Source, schemes: Iterable[LabelScheme]) -> Source:
    """The source with the organs that label maps show; plans, and those of a manifest, stay as they are.

    Raises `RecipeError` if they show none of the recipe's organs, have no value for the tumors of one, or if neither
    the recipe tells the contrast phase nor an organ shows it.
    """
    schemes = list(schemes)
    shown = {organ for scheme in schemes for organ in scheme.organs}
    labelled = {organ for scheme in schemes for organ in scheme.tumors}
    told = "; ".join(map(str, schemes))
    if not isinstance(source, SynthesisRecipe):
        if not shown & labelled:
            raise RecipeError("the labels show no organ together with its tumors", found=told, expected=_BOTH)
        return source
    organs = tuple(organ for organ in source.organs if organ in shown)
    if not organs:
        asked = ", ".join(source.organs)
        raise RecipeError(f"the labels show none of the recipe's organs: {asked}", found=told, expected=_BOTH)
    if mute := [organ for organ in organs if organ not in labelled]:
        raise RecipeError(
            f"the labels have no value for tumors of the {mute[0]}",
            found=told,
            fix=f'name one, even if no case has a real tumor: {{"{mute[0]}_tumor": 2}}; or leave the organ out',
        )
    if source.phase is None and not any(name in scheme.structures for scheme in schemes for name in PHASE_ORGANS):
        raise RecipeError(
            "the contrast phase cannot be told from the organs that the labels show",
            found=told,
            expected=f"one of {', '.join(PHASE_ORGANS)}",
            fix=f"set phase in the recipe: {', '.join(anatomy.PHASES)}",
        )
    return source.with_changes(organs=organs)


def modules_of(source: Source) -> tuple[str, ...]:
    """The generators of the form `module:Class` that the plans of a source may name."""
    return (source.generator,) if isinstance(source, SynthesisRecipe) else source.allow_modules


_BOTH = 'an organ and its tumors, as {"liver": 1, "liver_tumor": 2}'
