"""What a command would write, how large and how long, from one case done in a folder that is taken away again."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from synthoma.cases import Case
    from synthoma.datasets.layouts.opening import Dataset
    from synthoma.segmentation.recipe import TrainRecipe

TRIES = 3  # cases, if the first cannot be done

DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be written, how large and how long; write nothing into OUT."),
]


def preview(
    cases: Mapping[str, Callable[[Path], str]], out: Path, *, copies: int = 1, workers: int = 0, elsewhere: bool = False
) -> NoReturn:
    """Tell how many cases a command would write, how large and how long, and end it: with 1 if the first ones fail.

    cases: id -> a function that does the case in a folder and says what went wrong, if anything. out: is only looked
    at. copies: of each case. elsewhere: on a cluster, of which no time is known.
    """
    total = copies * len(cases)
    with tempfile.TemporaryDirectory(prefix="synthoma-") as place:
        for number, (name, attempt) in enumerate(list(cases.items())[:TRIES]):
            folder = Path(place) / f"try_{number}"
            began = time.perf_counter()
            error = attempt(folder)
            seconds = time.perf_counter() - began
            if not error:
                break
            typer.echo(error if name in error else f"{name}: {error}", err=True)
        else:
            typer.echo(f"Nothing was written. None of the first {min(TRIES, len(cases))} of {total} cases can be done.")
            raise typer.Exit(1)
        size = folder_bytes(folder)
    long = "" if elsewhere else f", in about {duration(total * seconds / max(workers, 1))}"
    typer.echo(f"{total} cases would be written to {out}: about {amount(total * size)}{long}.")
    typer.echo(f"This is judged by {name}, which took {amount(size)} and {duration(seconds)}; the others may differ.")
    say_end(out, total * size)


def one_by_one(dataset: Dataset, command: Callable[[Dataset, Path], Any]) -> dict[str, Callable[[Path], str]]:
    """For each case: what does it alone by a function of `commands`."""

    def alone(case: Case, folder: Path) -> Any:
        return command(replace(dataset, cases=(case,)), folder)

    return {case.id: partial(attempt_case, alone, case) for case in dataset}


def attempt_case(work: Callable[[Any, Path], Any], case: Any, folder: Path) -> str:
    """Do a case in a folder; what went wrong, or nothing."""
    from synthoma.errors import SynthomaError

    try:
        done = work(case, folder)
    except SynthomaError as error:
        return str(error)
    failed = getattr(done, "failed", None) or {}  # of an `Outcome`
    return next(iter(failed.values()), "")


def say_end(out: Path, size: float) -> NoReturn:
    """Whether there is room, and whether something is there already; then the command ends."""
    home = next(folder for folder in (out, *out.parents) if folder.is_dir())
    free = shutil.disk_usage(home).free
    if size > free:
        typer.echo(f"This does not fit: {amount(free)} are free.", err=True)
    if (out / "run.json").is_file():
        typer.echo(f"{out} holds a run already: if it is the same, what is done in it is not done again.")
    typer.echo("Nothing was written.")
    raise typer.Exit(0)


@dataclass(frozen=True)
class Trial:
    """A training of a few steps. cache_s, cache_bytes: of one case; step_s: of one step; model_bytes: of the result."""

    cache_s: float
    cache_bytes: float
    step_s: float
    model_bytes: int


def try_training(recipe: TrainRecipe, cases: Sequence[Case], device: str, workers: int) -> Trial:
    """Seconds and bytes of a training, from some steps on the first cases that can teach what is asked.

    Raises what `train` raises if the first sixteen cannot.
    """
    from synthoma.datasets.layouts.opening import Dataset
    from synthoma.errors import SynthomaError
    from synthoma.training.segmentation import train

    with tempfile.TemporaryDirectory(prefix="synthoma-") as place:
        folder = Path(place)

        def seconds(name: str, steps: int, few: Sequence[Case]) -> float:
            short = recipe.with_changes(
                steps=steps, validation=0.0, validate_every=0, pictures_every=0, tensorboard=False
            )
            began = time.perf_counter()
            train(short, Dataset(folder, "some", "some", tuple(few)), folder / name, cache=folder / "cache",
                  device=device, workers=workers)  # fmt: skip
            return time.perf_counter() - began

        for count in (1, 4, 16):
            few = cases[:count]
            try:
                first = seconds(f"first_{count}", 1, few)
                break
            except SynthomaError:
                if len(few) == len(cases) or count == 16:
                    raise
        start, longer = seconds("start", 1, few), seconds("longer", 4, few)
        return Trial(
            max(first - start, 0.0) / len(few),
            folder_bytes(folder / "cache") / len(few),
            max(longer - start, 0.0) / 3,
            folder_bytes(folder / "longer"),
        )


def folder_bytes(folder: Path) -> int:
    """Of all files below a folder; 0 if there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def amount(size: float) -> str:
    """Bytes in words: `35 MB`."""
    for unit, many in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= many:
            return f"{size / many:.{0 if size >= 10 * many else 1}f} {unit}"
    return f"{max(size / 1e3, 1):.0f} kB"


def duration(seconds: float) -> str:
    """Seconds in words: `12 s`, else `0:03:20`."""
    return f"{seconds:.2g} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
