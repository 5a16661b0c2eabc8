"""Commands about networks: train one, segment with it, hand it on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from synthoma.cli.app import (
    AllowFailures,
    AllowModules,
    Cluster,
    Out,
    Overrides,
    RecipeName,
    Timeout,
    Workers,
    app,
    finish,
    say_once,
)
from synthoma.cli.preview import DryRun, amount, duration, one_by_one, preview, say_end, try_training
from synthoma.errors import listed

if TYPE_CHECKING:
    from synthoma.training.segmentation import Planned

Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[int, typer.Option("--threads", help="Of torch on the CPU.")]


@app.command()
def train(
    recipe: RecipeName,
    data: Annotated[list[Path], typer.Option("--data", help="Data set, in any known layout; repeatable.")],
    out: Out,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, patches and tumors.")] = 0,
    splits: Annotated[Path | None, typer.Option("--splits", help="Who trains and who validates (JSON).")] = None,
    fold: Annotated[int, typer.Option("--fold", help="Of the splits.")] = 0,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Prepared cases, shared by runs [cache beside OUT].")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Model to start from: file, train run, or one in the box.")
    ] = None,
    device: Device = "auto",
    workers: Annotated[int, typer.Option("--workers", help="Processes that make patches.")] = 0,
    threads: Threads = 1,
    changes: Overrides = [],  # noqa: B006
    allow_failures: AllowFailures = 0,
    allow_modules: AllowModules = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Train a segmentation on real tumors, on synthetic ones drawn anew in every epoch, or on both."""
    from synthoma.extras import need

    need("torch", extra="train").set_num_threads(threads)
    from synthoma.learning.models import MODEL
    from synthoma.training.segmentation import plan_training, read_train_recipe
    from synthoma.training.segmentation import train as train_segmentation

    settings = read_train_recipe(recipe, changes)
    if dry_run:
        _preview_training(
            plan_training(
                settings, data, out, seed=seed, splits=splits, fold=fold, cache=cache, start=start,
                allow_failures=allow_failures, allow_modules=allow_modules,
            ), out, device, workers,
        )  # fmt: skip
    model = train_segmentation(
        settings, data, out, seed=seed, splits=splits, fold=fold, cache=cache,
        start=start, device=device, workers=workers, allow_failures=allow_failures, allow_modules=allow_modules,
    )  # fmt: skip
    for line in _closing(model.record):
        typer.echo(line)
    typer.echo(f"model: {out / MODEL}")


def _preview_training(planned: Planned, out: Path, device: str, workers: int) -> None:
    """Tell what a training would read and write and how long it would take, from some steps; ends the command."""
    cases = [*planned.data.cases, *planned.data.validation]
    trial = try_training(planned.recipe, planned.data.cases, device, workers)
    cached, steps = len(cases) * trial.cache_bytes, planned.recipe.steps
    typer.echo(
        f"{len(cases)} cases would be prepared in {planned.data.cache}, those excepted that are there already:"
        f" about {amount(cached)}, in about {duration(len(cases) * trial.cache_s / max(workers, 1))}."
    )
    typer.echo(
        f"Then {steps} steps on {len(planned.data.cases)} of them in about {duration(steps * trial.step_s)}, validation"
        f" not counted; the model of about {amount(trial.model_bytes)} would be in {out}."
    )
    say_end(out, cached + trial.model_bytes)


def _closing(record: dict[str, Any]) -> list[str]:
    """What a training came to, in lines."""
    figures, learned = record["figures"], record["data"]
    lines = [
        f"{record['steps']} steps on {len(learned['training'])} cases of {learned['patients']} patients,"
        f" with {learned['real_tumors']} real tumors"
    ]
    if learned["left_out"]:
        lines.append(f"{len(learned['left_out'])} cases were left out: {listed(learned['left_out'])}")
    if figures["latest"]:
        shown = ", ".join(
            f"{name} {'undefined' if value is None else value}" for name, value in figures["latest"].items()
        )
        lines.append(f"last validation, of {len(learned['validation'])} cases: {shown}")
    if figures["score"] is not None:
        lines.append(f"best score: {figures['score']:.4f} at step {figures['step']}")
    return lines


@app.command()
def segment(
    model: Annotated[str, typer.Argument(help="Model file, train run, or a model in the box.", metavar="MODEL")],
    scans: Annotated[Path, typer.Argument(help="Data set, DICOM folder, or one image.", metavar="IN")],
    out: Out,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Windows, flips, thresholds (TOML).")] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write those of every class too.")] = False,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="Write a DICOM SEG beside the masks of each DICOM series.")
    ] = False,
    device: Device = "auto",
    threads: Threads = 1,
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
    allow_modules: AllowModules = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Segment organs and tumors, on exactly the scans' grids."""
    from functools import partial

    from synthoma.extras import need
    from synthoma.reading import open_dataset
    from synthoma.recipe import read_recipe

    need("torch", extra="train").set_num_threads(threads)
    from synthoma.commands import scans as commands
    from synthoma.learning.loop import choose_device
    from synthoma.learning.models import find_model, model_at
    from synthoma.segmentation.infer import SegmentRecipe, estimate_memory
    from synthoma.segmentation.outputs import find_inputs

    settings, path = read_recipe(SegmentRecipe, recipe, changes), find_model(model)
    dataset = find_inputs(scans, partial(open_dataset, allow_modules=allow_modules))
    spec = model_at(path, choose_device(device)).spec
    if dataset.cases:
        needed = estimate_memory(spec, dataset.cases[0].read_geometry(), settings, device)
        typer.echo(f"{', '.join(spec.classes)}; the first of {len(dataset.cases)} cases: {needed}", err=True)
    work = partial(commands.segment, path, recipe=settings, probabilities=probabilities, device=device,
                   dicom_seg=dicom_seg, timeout_s=timeout)  # fmt: skip
    if dry_run:
        preview(one_by_one(dataset, work), out, workers=workers, elsewhere=cluster is not None)
    done = work(dataset, out, workers=workers, cluster=cluster)
    say_once((record.case, note) for record in done.records for note in record.result.get("notes", ()))
    finish(done.records, out, done.faults, allow_failures)


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="Model file, train run, or a model in the box.", metavar="MODEL")],
    data: Annotated[Path, typer.Option("--data", help="Cases that it was not trained on, with annotated tumors.")],
    out: Out,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="What is tried, and false alarms (TOML).")] = None,
    splits: Annotated[Path | None, typer.Option("--splits", help="Use those who validate in it (JSON).")] = None,
    fold: Annotated[int, typer.Option("--fold", help="Of the splits.")] = 0,
    device: Device = "auto",
    threads: Threads = 1,
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    allow_failures: AllowFailures = 0,
) -> None:
    """Give a model probabilities that mean something, and thresholds by the false alarms to expect."""
    from synthoma.extras import need
    from synthoma.recipe import read_recipe

    need("torch", extra="train").set_num_threads(threads)
    from synthoma.commands import scans as commands
    from synthoma.training.calibration import CalibrateRecipe

    done = commands.calibrate(
        model, data, out, recipe=read_recipe(CalibrateRecipe, recipe, changes), splits=splits, fold=fold,
        device=device, workers=workers, allow_failures=allow_failures,
    )  # fmt: skip
    for level in ("high", "balanced", "specific"):
        if point := done.summary.get(level):
            typer.echo(f"{level}: {point['false_per_scan']:.2f} false lesions a scan, {point['sensitivity']:.0%} found")
    finish(done.records, out, done.faults, allow_failures)


@app.command()
def negatives(
    data: Annotated[Path, typer.Argument(help="Data set; of it, cases known to bear no tumor.", metavar="DATA")],
    segmented: Annotated[Path, typer.Argument(help="What segment wrote of it.", metavar="SEGMENTED")],
    out: Annotated[Path, typer.Option("--out", help="File to write, for patches.negatives of a training.")],
    healthy: Annotated[
        list[str], typer.Option("--healthy", help="Data set or case known to be healthy, * for all; repeatable.")
    ] = [],  # noqa: B006
) -> None:
    """Write down a model's false alarms in healthy organs, for a training to learn from."""
    from synthoma.commands import scans as commands

    typer.echo(f"{commands.find_negatives(data, segmented, out, healthy)} false alarms: {out}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Model file, train run, or a model in the box.", metavar="RUN")],
    to: Annotated[Literal["onnx", "monai-bundle", "safetensors"], typer.Option("--to", help="What to write.")],
    out: Annotated[Path, typer.Option("--out", help="File (monai-bundle: folder) to write.")],
    card: Annotated[
        Path | None, typer.Option("--card", help="What is to be known of the model (TOML); with safetensors.")
    ] = None,
) -> None:
    """Hand a model on, to be used without this program; with --card, in half the size and with its card beside it."""
    from synthoma.errors import RecipeError
    from synthoma.extras import need

    need("torch", extra="train")
    from synthoma.learning.models import load_model
    from synthoma.segmentation.export import export as write
    from synthoma.segmentation.export import write_with_card

    if card is None:
        write(load_model(model), to, out)
    elif to == "safetensors":
        typer.echo(str(write_with_card(load_model(model), card, out)))
    else:
        raise RecipeError(f"a card does not go into {to}", fix="say --to safetensors")
    typer.echo(str(out))
