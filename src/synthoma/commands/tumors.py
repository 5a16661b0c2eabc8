"""Tumors into the cases of a data set, and the same ones again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from synthoma import disk, reading, runs
from synthoma.cases import Case
from synthoma.commands.outcome import Outcome, as_dataset, as_recipe
from synthoma.datasets.layouts.joining import require_masks
from synthoma.datasets.layouts.opening import Dataset
from synthoma.engine import mapping
from synthoma.engine.clusters import ClusterRecipe
from synthoma.errors import CaseError
from synthoma.extras import need
from synthoma.recipe import Recipe
from synthoma.synthesis.generators.loading import GENERATORS, generator_file, open_generator
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.store.copies import copies_of
from synthoma.synthesis.store.manifest import read_manifest
from synthoma.synthesis.store.outputs import Critics, finish_synthesis, replay_case, require_writable, synthesize_case


def synthesize(
    recipe: SynthesisRecipe | Path | str,
    data: Dataset | Path | str,
    out: Path | str,
    *,
    seed: int = 0,
    write: str = "full",
    copies: int = 1,
    maps: Sequence[str] = (),
    device: str = "cpu",
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    timeout_s: float | None = None,
) -> Outcome:
    """Tumors into every case of a data set, written to the run folder `out`; the same call again resumes.

    recipe: a synthesis recipe, its TOML file, or the name of one that comes along. write: `full` (NIfTI), `overlay`
    (the voxels that changed) or `plans` (the manifest alone). copies: synthetic cases from each scan. maps: label maps
    to add, by names of `store.outputs.MAPS`. device: where learned generators and critics compute. workers, cluster,
    timeout_s: as in `map_cases`. A case that fails is a record with its reason.
    """
    settings, dataset, out = (
        as_recipe(SynthesisRecipe, recipe, "synthesis"),
        as_dataset(data),
        Path(os.path.abspath(out)),
    )
    cases = copies_of(dataset.cases, copies)
    require_writable(write, maps)
    open_generator(settings.generator, device, allowed=(settings.generator,))
    _require_device(settings.generator, bool(settings.critic.models), device)
    _require_an_organ(dataset, settings)
    critics = _open_critics(settings, device)
    facts = reading.input_facts(
        dataset, write=write, maps=" ".join(maps), copies=str(copies), **_models(settings.generator, critics)
    )
    with runs.open_run(out, "synthesize", settings, seed, facts) as run:
        task = partial(
            synthesize_case, recipe=settings, seed=seed, out=out, write=write, maps=maps, critics=critics, device=device
        )
        records = mapping.map_cases(
            task, cases, run=run, workers=workers, cluster=cluster, timeout_s=timeout_s, title="synthesize",
            reads=Case.reads,
        )  # fmt: skip
        made = finish_synthesis(records, out, dataset.root, write)
        run.note(**made)
    return Outcome(out, records, dataset.faults, made)


def replay(
    manifest: Path | str,
    data: Dataset | Path | str,
    out: Path | str,
    *,
    write: str = "full",
    maps: Sequence[str] = (),
    allow_modules: Sequence[str] = (),
    generator: str = "",
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    timeout_s: float | None = None,
) -> Outcome:
    """The tumors of a manifest again, bit for bit; a tumor that comes out otherwise is a failed case.

    manifest: the file, or the folder of a synthesis. data: the scans that its plans were made on. allow_modules:
    generators of the form `module:Class` that it may name. generator: the model that its plans were made with, where it
    is not where it was. The others as in `synthesize`.
    """
    table, dataset, out = read_manifest(manifest), as_dataset(data), Path(os.path.abspath(out))
    require_writable(write, maps)
    facts = reading.input_facts(dataset, manifest=disk.digest(table.path), write=write, maps=" ".join(maps))
    with runs.open_run(out, "replay", Recipe(), inputs=facts) as run:
        task = partial(
            replay_case,
            manifest=table,
            out=out,
            write=write,
            maps=maps,
            allow_modules=allow_modules,
            generator=generator,
        )
        records = mapping.map_cases(
            task, table.cases_in(dataset), run=run, workers=workers, cluster=cluster, timeout_s=timeout_s,
            title="replay", reads=Case.reads,
        )  # fmt: skip
        made = finish_synthesis(records, out, dataset.root, write)
        run.note(**made)
    return Outcome(out, records, (), made)


def _require_device(generator: str, critics: bool, device: str) -> None:
    """`RunError` for a device that is not there, before any case is read; only for what can use one."""
    if device != "cpu" and (critics or generator_file(generator) is not None):
        need("torch", extra="train")
        from synthoma.learning.loop import choose_device

        choose_device(device)


def _open_critics(recipe: SynthesisRecipe, device: str) -> Critics | None:
    """Who judges the tumors of each case, after the models have been looked at; None for no critic."""
    if not recipe.critic.models:
        return None
    need("torch", extra="train")
    from synthoma.training.critics import LesionCritics

    return LesionCritics.of(recipe.critic.models, recipe.organs, device)


def _models(generator: str, critics: Critics | None) -> dict[str, str]:
    """Digests of the models that a synthesis depends on."""
    path = generator_file(generator) if generator not in GENERATORS else None
    found = {"generator": disk.digest(path)} if path else {}
    return found | ({"critic": " ".join(critics.digests)} if critics else {})  # type: ignore[attr-defined]


def _require_an_organ(dataset: Dataset, recipe: SynthesisRecipe) -> None:
    """`CaseError` if no case has any organ of the recipe, as far as that is known without reading voxels."""
    require_masks(dataset)
    told = [case for case in dataset if isinstance(case.masks, dict)]
    if told and len(told) == len(dataset) and not any(case.has_organ(o) for case in told for o in recipe.organs):
        raise CaseError(
            f"no case has {' or '.join(recipe.organs)} annotated",
            found=", ".join(dict.fromkeys(name for case in told for name in case.masks)) or "no masks at all",
            fix="name other organs (--set organs=...), or segment them first (`synthoma segment`)",
        )
