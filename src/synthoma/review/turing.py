"""The blinded study: items written alike for both arms, shown in an order of each reader's own.

What a reader's browser gets of an item is its voxels, all items' of one length, on one grid of bytes, under a random
name; the arm stays in the database.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from synthoma import disk
from synthoma.datasets.layouts.opening import Dataset
from synthoma.errors import CaseError, FileError
from synthoma.review.arms import Subject, cut_out, field_shape, find_leaks, find_subjects, match_arms, padded
from synthoma.review.kinds import AnswerError, View
from synthoma.review.recipes import TuringRecipe
from synthoma.review.store import Item, Reader, Store, Task
from synthoma.seeds import rng_for
from synthoma.statistics.multireader import detection_power, equivalence_power
from synthoma.volume import Geometry

KIND = "turing"
REAL, SYNTHETIC = "real", "synthetic"
FOLDER = "items"
SIGNS = ("texture", "border", "shape", "contrast", "location", "surroundings", "noise")
LIKELY = 0.75  # share of right answers for which the power of detection is told


class Rating(pydantic.BaseModel):
    """An answer. rating: 1 (surely real) to 6 (surely synthetic); choice: which of two is synthetic; one of both.

    signs: what gave it away; late: given after the time limit.
    """

    model_config = pydantic.ConfigDict(extra="forbid")
    rating: int | None = pydantic.Field(None, ge=1, le=6)
    choice: Literal["first", "second"] | None = None
    signs: list[Literal["texture", "border", "shape", "contrast", "location", "surroundings", "noise"]] = []
    late: bool = False


def create_study(
    store: Store, folder: Path, real: Dataset, synthetic: Dataset, recipe: TuringRecipe, readers: int, seed: int
) -> list[str]:
    """Fills the store of a new study and writes its items; what the user should know before it starts.

    Nothing but the same words if the study has its items already.
    """
    if store.fact("created"):
        return list(store.fact("notes", []))
    pools = [find_subjects(real, recipe.organs, False), find_subjects(synthetic, recipe.organs, True)]
    pairs = match_arms(pools[0], pools[1], recipe, seed)
    notes = [*_plan_in_words(pairs, recipe, readers), *(f"warning: {leak}" for leak in find_leaks(pairs))]
    shown = [(subject, arm) for pair in pairs for subject, arm in zip(pair, (REAL, SYNTHETIC), strict=True)]
    written = _write_items(shown, {REAL: real, SYNTHETIC: synthetic}, folder / FOLDER, recipe)
    with store.transaction():
        people = [store.add_reader(f"reader {n}") for n in range(1, readers + 1)]
        items = _add_items(store, shown, written, recipe, rng_for(seed, "order").permutation(len(shown)).tolist())
        for person in people:
            for position, (item, repeat) in enumerate(_order(items, recipe.repeats, seed, person.id)):
                store.add_task(person.id, item, 0, position, repeat)
        store.set_fact("notes", notes)
        store.set_fact("created", True)
    return notes


def _add_items(
    store: Store,
    shown: Sequence[tuple[Subject, str]],
    written: Mapping[int, dict[str, Any]],
    recipe: TuringRecipe,
    order: Sequence[int],
) -> list[int]:
    """The items of the study in a drawn order: single lesions, or pairs."""
    if recipe.design == "rating":
        return [
            store.add_item(
                shown[n][0].case, f"{shown[n][0].organ}_lesion", shown[n][1], written[n] | _about(shown[n][0])
            )
            for n in order
        ]
    return [
        store.add_item(
            shown[n][0].case,
            f"{shown[n][0].organ}_lesion",
            "pair",
            {"pair": [written[n] | _about(shown[n][0]), written[n + 1] | _about(shown[n + 1][0])]},
        )
        for n in order
        if n % 2 == 0
    ]


def _about(subject: Subject) -> dict[str, Any]:
    return {"diameter_mm": round(subject.diameter_mm, 2), "contrast_hu": round(subject.contrast_hu, 1)}


def _write_items(
    shown: Sequence[tuple[Subject, str]], datasets: Mapping[str, Dataset], folder: Path, recipe: TuringRecipe
) -> dict[int, dict[str, Any]]:
    """Writes the voxels of every lesion, all files of one length; each one's file, shape and spacing.

    A scan is read once for all of its lesions.
    """
    cases = list(dict.fromkeys((arm, subject.case) for subject, arm in shown))
    shapes = [field_shape(datasets[arm][case].read_geometry(), recipe) for arm, case in cases]
    shape = [max(sizes) for sizes in zip(*shapes, strict=True)]
    written: dict[int, dict[str, Any]] = {}
    for arm, case in cases:
        scan = datasets[arm][case].read_image()
        for n, (subject, own_arm) in enumerate(shown):
            if (own_arm, subject.case) != (arm, case):
                continue
            volume = cut_out(scan, subject.center_mm, recipe)
            name = f"{secrets.token_hex(8)}.bin"
            with disk.atomic(folder / name) as part:
                part.write_bytes(padded(volume.data, shape).astype("<i2").tobytes(order="F"))
            written[n] = {"file": name, "shape": shape, "spacing_mm": list(volume.geometry.spacing_mm)}
    return written


def _order(items: Sequence[int], repeats: int, seed: int, reader: int) -> list[tuple[int, int]]:
    """A reader's own order: all items, then, mixed into its last part, some of its first part again."""
    rng = rng_for(seed, "reader", reader)
    first = [(int(item), 0) for item in rng.permutation(items)]
    again = [(item, 1) for item, _ in first[: len(first) // 2]]
    rng.shuffle(again)
    late = first[len(first) - len(first) // 3 :] + again[:repeats]
    rng.shuffle(late)
    return first[: len(first) - len(first) // 3] + late


def _plan_in_words(pairs: Sequence[tuple[Subject, Subject]], recipe: TuringRecipe, readers: int) -> list[str]:
    """What the study compares, and with which power, before it starts."""
    sizes = [np.array([pair[side].diameter_mm for pair in pairs]) for side in (0, 1)]
    contrasts = [np.array([pair[side].contrast_hu for pair in pairs]) for side in (0, 1)]
    organs = sorted({pair[0].organ for pair in pairs})
    cases = len(pairs) if recipe.design == "pairs" else 2 * len(pairs)
    same = equivalence_power(cases, readers, recipe.margin, recipe.correlation)
    seen = detection_power(cases, readers, LIKELY, recipe.correlation)
    return [
        f"{len(pairs)} real and {len(pairs)} synthetic lesions of {', '.join(organs)}; median diameter"
        f" {np.median(sizes[0]):.1f} and {np.median(sizes[1]):.1f} mm, contrast {np.median(contrasts[0]):+.0f} and"
        f" {np.median(contrasts[1]):+.0f} HU",
        f"power with {cases} answers from each of {readers} readers, correlation {recipe.correlation:g}: {same:.0%} to"
        f" show that readers guess (accuracy within 0.5 ± {recipe.margin:g}) if they do, {seen:.0%} to show that they"
        f" do not if {LIKELY:.0%} of their answers are right",
    ]


@dataclass(frozen=True, eq=False)
class TuringKind:
    """The kind of study that `synthoma review turing` serves."""

    store: Store
    folder: Path
    recipe: TuringRecipe
    page: str = "turing"

    def settings(self, reader: Reader) -> dict[str, Any]:
        """Design, signs and time limit."""
        return {"design": self.recipe.design, "signs": SIGNS, "seconds": self.recipe.seconds}

    def scans(self, task: Task, item: Item) -> list[Mapping[str, Any]]:
        """The one or two lesions of an item; of a pair in the order of this reader and showing."""
        if "pair" not in item.facts:
            return [item.facts]
        pair = list(item.facts["pair"])
        return pair[::-1] if self.synthetic_first(task) else pair

    def synthetic_first(self, task: Task) -> bool:
        """Whether a pair shows its synthetic lesion first; drawn for every task."""
        text = f"{self.store.fact('secret')} {task.code}"
        return bool(hashlib.sha256(text.encode()).digest()[0] & 1)

    def view(self, task: Task) -> View:
        """The grid; nothing else."""
        scans = self.scans(task, self.store.item(task.item))
        grids = [Geometry.of(facts["shape"], facts["spacing_mm"], "LPS") for facts in scans]
        return View(grids[0], facts={"content": {}, "spacings_mm": [grid.spacing_mm for grid in grids]})

    def scan(self, task: Task, which: int) -> tuple[int, Iterator[bytes]]:
        """The voxels of an item, which are its file."""
        scans = self.scans(task, self.store.item(task.item))
        if which >= len(scans):
            raise CaseError(f"no scan {which}")
        path = self.folder / FOLDER / str(scans[which]["file"])
        try:
            data = path.read_bytes()
        except OSError as error:
            raise FileError("an item cannot be read", found=error.strerror) from error
        return len(data), iter([data])

    def check(self, task: Task, content: Mapping[str, Any], final: bool) -> dict[str, Any]:
        """A rating, or a choice of two."""
        try:
            answer = Rating.model_validate(dict(content))
        except pydantic.ValidationError as error:
            raise AnswerError("The answer is not complete.") from error
        given = answer.choice if self.recipe.design == "pairs" else answer.rating
        if given is None:
            raise AnswerError(
                "Say which of the two is synthetic." if self.recipe.design == "pairs" else "Give a rating from 1 to 6."
            )
        return answer.model_dump()

    def mask_of(self, task: Task) -> str | None:
        """None: nothing is drawn."""
        return None

    def finished(self, task: Task) -> None:
        """Nothing follows."""
