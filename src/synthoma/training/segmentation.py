"""Train a segmentation on data sets: what `synthoma train` and `synthoma.train` call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from synthoma import disk, reading
from synthoma.cases import Case
from synthoma.datasets.layouts.opening import Dataset
from synthoma.engine.records import require_unchanged
from synthoma.extras import need
from synthoma.recipe import find_recipe, read_recipe
from synthoma.runs import open_run
from synthoma.training.data import open_all, outside_splits, refuse_synthetic_hosts, sides
from synthoma.training.scores import score_validation
from synthoma.training.tumors import make_augment, with_synthesis

if TYPE_CHECKING:
    from synthoma.learning.models import Model
    from synthoma.segmentation.preparation import TrainingData
    from synthoma.segmentation.recipe import TrainRecipe

KIND = "train"


def train(
    recipe: TrainRecipe | Path | str,
    data: Dataset | Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    seed: int = 0,
    splits: Path | str | None = None,
    fold: int = 0,
    cache: Path | str | None = None,
    start: Path | str | None = None,
    device: str = "auto",
    workers: int = 0,
    allow_failures: int = 0,
    allow_modules: Sequence[str] = (),
) -> Model:
    """The trained model, also `model.safetensors` in the run folder `out`; the same call again resumes.

    recipe: a train recipe, its TOML file, or the name of one that comes along; one with more `steps` than the run in
    `out` had goes on from its model. data: a data set, or the folders of some. seed: of weights, patches and tumors.
    splits, fold: who trains and who validates (JSON); else drawn by the recipe. cache: prepared cases, shared by runs;
    a folder `cache` beside `out` unless given. start: model to start from: a file, a train run, or one in the box.
    workers: processes that make patches; how many there are changes nothing but the speed. allow_failures: so many
    cases may be broken; they are left out, and named in the model's record. allow_modules: generators of the form
    `module:Class` that a manifest may name, that of `synthesis.manifest` or of a data set.
    Started by torchrun all its processes train together; each returns the model.
    Raises what `segmentation.train.train` raises, and `FailedCasesError` for too many broken cases; nothing is written
    before the request is known to be possible.
    """
    need("torch", extra="train")
    from synthoma.learning.loop import open_team
    from synthoma.segmentation.train import train as run_training

    out = Path(out).absolute()
    planned = plan_training(
        recipe, data, out, seed=seed, splits=splits, fold=fold, cache=cache, start=start,
        allow_failures=allow_failures, allow_modules=allow_modules,
    )  # fmt: skip
    settings, material = planned.recipe, planned.data
    with (
        open_team(device) as team,
        open_run(out, KIND, settings, seed, planned.facts, growing="steps") if team.is_rank_0 else nullcontext() as run,
    ):
        if run:
            require_unchanged(run, [*material.cases, *material.validation], Case.reads)
        model = run_training(settings, material, run, team, seed=seed, workers=workers, title="train")
        if run:
            run.note(**model.record["figures"], steps=model.record["steps"], left_out=model.record["data"]["left_out"])
    return model


@dataclass(frozen=True, eq=False)
class Planned:
    """A training that is known to be possible. facts: what its run's record says of what it reads."""

    recipe: TrainRecipe
    data: TrainingData
    facts: dict[str, str]


def plan_training(
    recipe: TrainRecipe | Path | str,
    data: Dataset | Path | str | Sequence[Path | str],
    out: Path,
    *,
    seed: int = 0,
    splits: Path | str | None = None,
    fold: int = 0,
    cache: Path | str | None = None,
    start: Path | str | None = None,
    allow_failures: int = 0,
    allow_modules: Sequence[str] = (),
) -> Planned:
    """Opens the data and refuses what cannot be trained; writes nothing. The arguments are those of `train`."""
    need("torch", extra="train")
    from synthoma.learning.models import find_model, load_model
    from synthoma.segmentation.preparation import check_request

    settings, dataset = read_train_recipe(recipe), _opened(data, allow_modules)
    training, validation, failed = sides(dataset, settings, Path(splits) if splits else None, fold, seed)
    if splits and len(_folders(data)) > 1:
        training += outside_splits(dataset, Path(splits))
    refuse_synthetic_hosts(_folders(data), training, settings)
    origin = find_model(start) if start else None
    facts = reading.input_facts(
        dataset, splits=str(splits or ""), fold=str(fold), start=disk.digest(origin) if origin else ""
    )
    if settings.patches.negatives:
        facts |= {"negatives": disk.digest(Path(settings.patches.negatives))}
    kept = Path(cache) if cache else out.parent / "cache"
    material = training_data(settings, training, validation, kept, seed, allow_modules)
    material = replace(
        material, start=load_model(origin) if origin else None, failed=failed, allow_failures=allow_failures
    )
    check_request(settings, material)
    return Planned(settings, material, facts)


def read_train_recipe(recipe: TrainRecipe | Path | str, changes: Sequence[str] = ()) -> TrainRecipe:
    """A train recipe with its table of synthesis complete; changes: overrides of the form `key.sub=value`.

    A change of `synthesis.manifest` takes the place of what the recipe says of synthesis: finished tumors leave nothing
    to choose.
    """
    need("torch", extra="train")
    from synthoma.segmentation.recipe import TrainRecipe

    if isinstance(recipe, TrainRecipe):
        return with_synthesis(recipe, "recipe")
    if any(change.partition("=")[0].strip() == "synthesis.manifest" for change in changes):
        changes = ["synthesis={}", *changes]
    return with_synthesis(read_recipe(TrainRecipe, find_recipe(recipe, "train"), changes), recipe)


def training_data(
    recipe: TrainRecipe,
    cases: Sequence[Case],
    validation: Sequence[Case],
    cache: Path,
    seed: int,
    allow_modules: Sequence[str] = (),
) -> TrainingData:
    """What the loop of `segmentation.train` reads, with the recipe's synthetic tumors and the scores of `evaluate`.

    allow_modules: generators of the form `module:Class` that a manifest of tumors may name.
    """
    from synthoma.segmentation.preparation import TrainingData

    return TrainingData(cases, cache, validation, make_augment(recipe, seed, allow_modules), score_validation)


def _opened(data: Dataset | Path | str | Sequence[Path | str], allow_modules: Sequence[str]) -> Dataset:
    return data if isinstance(data, Dataset) else open_all(_folders(data), allow_modules)


def _folders(data: Dataset | Path | str | Sequence[Path | str]) -> list[Path]:
    if isinstance(data, Dataset):
        return [data.root]
    return [Path(data)] if isinstance(data, Path | str) else [Path(folder) for folder in data]
