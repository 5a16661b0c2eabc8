"""A scan and a model become organs and tumors on exactly the scan's grid, in memory that is known beforehand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from synthoma import anatomy
from synthoma.errors import CaseError, RecipeError
from synthoma.learning.calibration import Level, Scaling, rescaled
from synthoma.learning.loop import Precision, choose_device, choose_precision, memory_advice
from synthoma.learning.models import Model, ModelSpec
from synthoma.learning.networks import check_patch
from synthoma.recipe import Recipe
from synthoma.segmentation.field import air_around, on_model_grid
from synthoma.segmentation.memory import MemoryEstimate
from synthoma.segmentation.nearness import KEPT_BYTES, find_region
from synthoma.segmentation.structures import FULL, Cut, Tumors, find_organ, find_tumors, least_level, near, restore
from synthoma.segmentation.windows import Windows, blend, require_finite
from synthoma.volume import PADDING_HU, Array, Box, Geometry, Triple, Volume

_CPU_VOXELS = 128**3  # of the windows that are looked at at once on a CPU


class SegmentRecipe(Recipe):
    """How a scan is segmented.

    overlap: of neighboring windows, as a share of a window. flips: axes along which the scan is also looked at
    mirrored (all combinations), the mean of probabilities taken. batch: windows looked at at once; 0 is 8 on a GPU, and
    on a CPU as many as fill 128^3 voxels, 2 to 4. patch: the windows' size in voxels, if not that of training.
    near_mm: a first look takes as few windows as cover the scan; then only windows within so many mm of the organs that
    it finds are looked at, and beyond that nothing is found. precision: of the arithmetic. memory_gb: a scan that is
    estimated to need more is refused.

    threshold: the probability from which a voxel is taken; unless told one half, and for tumors of a calibrated model
    what its usual operating point says. peak: the probability that the surest voxel of a lesion has to reach, if
    it is above the threshold. smallest_mm3: of a lesion. part_share: parts of an organ smaller than this share of its
    largest one are dropped. inside_organ: tumors are looked for only within `margin_mm` of the organ that was
    `predicted`, or of the one `given` with the case; margin_mm: how far around it. candidates: from which probability
    on scores of tumors are kept. with_scan: whether the scan is written beside the masks, which makes the output a data
    set.
    thresholds, peaks, smallest_each_mm3: of single classes, by name. least_hu: of single classes of tumors, the median
    HU of a lesion's core below which it is water, as in a cyst, and no lesion. sensitivity: the model's own operating
    point of this name, with all of these and its flips; what is said here of flips or of a class is kept.
    """

    overlap: float = Field(0.5, ge=0, le=0.9)
    flips: tuple[Literal["R", "A", "S"], ...] = ()
    batch: int = Field(0, ge=0)
    patch: tuple[int, int, int] | None = None
    near_mm: float | None = Field(None, ge=0)
    precision: Precision = "auto"
    memory_gb: float | None = Field(None, gt=0)
    threshold: float | None = Field(None, gt=0, lt=1)
    thresholds: dict[str, float] = Field(default_factory=dict)
    part_share: float = Field(0.05, ge=0, le=1)
    inside_organ: Literal["no", "predicted", "given"] = "no"
    margin_mm: float = Field(5.0, ge=0)
    peak: float = Field(0.0, ge=0, lt=1)
    peaks: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=dict)
    smallest_mm3: float = Field(15.0, ge=0)
    smallest_each_mm3: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    least_hu: dict[str, float] = Field(default_factory=dict)
    sensitivity: Level | None = None
    candidates: float = Field(0.1, gt=0, lt=1)
    with_scan: bool = False

    @field_validator("thresholds")
    @classmethod
    def _between(cls, thresholds: dict[str, float]) -> dict[str, float]:
        if any(not 0 < threshold < 1 for threshold in thresholds.values()):
            raise ValueError("a threshold lies between 0 and 1")
        return thresholds

    @field_validator("flips")
    @classmethod
    def _once(cls, flips: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(flips)) < len(flips):
            raise ValueError("an axis is flipped once")
        return flips

    def threshold_of(self, name: str) -> float:
        """The threshold of a class."""
        return self.thresholds.get(name, 0.5 if self.threshold is None else self.threshold)

    def cut_of(self, name: str) -> Cut:
        """What makes a lesion of a class."""
        return Cut(
            self.threshold_of(name),
            self.peaks.get(name, self.peak),
            self.smallest_each_mm3.get(name, self.smallest_mm3),
            self.least_hu.get(name),
        )

    def at_point(self, spec: ModelSpec) -> SegmentRecipe:
        """The recipe with what its `sensitivity` stands for in a model, and one half where nothing is told.

        Without a sensitivity and a threshold a calibrated model is used at its usual point. Raises `RecipeError` if the
        model has no operating point of the name that is asked for.
        """
        points = spec.calibration.points if spec.calibration else {}
        level = self.sensitivity
        if level is None and self.threshold is None and spec.calibration and spec.calibration.usual in points:
            level = spec.calibration.usual
        if level is None:
            return self.with_changes(threshold=0.5) if self.threshold is None else self
        if spec.calibration is None or level not in points:
            raise RecipeError(
                f"the model has no operating point {level}",
                found=f"only {', '.join(points)}" if points else "a model that was never calibrated",
                fix="calibrate it (synthoma calibrate), or say --set threshold=... instead of sensitivity",
            )
        point = points[level]
        return self.with_changes(
            sensitivity=None,
            threshold=0.5 if self.threshold is None else self.threshold,
            flips=self.flips or spec.calibration.flips,
            thresholds={**point.thresholds, **self.thresholds},
            peaks={name: peak for name, peak in point.peaks.items() if name not in self.thresholds} | self.peaks,
            smallest_each_mm3={**point.smallest_mm3, **self.smallest_each_mm3},
            least_hu={**point.least_hu, **self.least_hu},
        )


@dataclass(frozen=True, eq=False)
class Prediction:
    """Probabilities on the model's grid. levels: uint8 (C, I, J, K), in 255ths.

    windows: how many the network looked at; left_out: how many it did not for want of an organ near them (`near_mm`).
    hu: the scan there, for a recipe that asks how dark a lesion is.
    """

    classes: tuple[str, ...]
    levels: Array
    grid: Geometry
    windows: int
    left_out: int = 0
    hu: Volume | None = None

    def restore(self, name: str, scan: Geometry) -> Array:
        """The levels of a class on a scan's grid, uint8."""
        return restore(self.levels[self.classes.index(name)], self.grid, scan)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A scan's organs and tumors, on exactly its grid. masks: bool, by class. tumors: by their class."""

    masks: dict[str, Volume]
    tumors: dict[str, Tumors]
    prediction: Prediction


def segment(
    model: Model,
    ct: Volume,
    recipe: SegmentRecipe | None = None,
    device: str | torch.device = "auto",
    organs: Callable[[str], Volume] | None = None,
) -> Segmentation:
    """Every class of the model as a mask on the scan's grid, tumors with their lesions and scores.

    organs: name -> mask, asked for where the recipe says that tumors lie inside the organ `given`. Raises what
    `predict` raises.
    """
    recipe = (recipe or SegmentRecipe()).at_point(model.spec)
    prediction = predict(model, ct, recipe, device)
    masks, found = {}, {}
    for name, structure in each_structure(prediction, ct.geometry, recipe, organs):
        if isinstance(structure, Tumors):
            found[name] = structure
            masks[name] = structure.mask
        else:
            masks[name] = structure
    return Segmentation(masks, found, prediction)


def predict(
    model: Model, ct: Volume, recipe: SegmentRecipe | None = None, device: str | torch.device = "auto"
) -> Prediction:
    """Probabilities of every class, on the scan's field of view at the model's spacing.

    ct: HU on any grid. Windows lie over the part of it that the model's HU window does not clip to black; beyond it,
    and in the air around the patient, nothing is found. With `near_mm`, voxels near the organs that a first look finds
    get exactly what they would get without, all others 0; if it finds none, every window is looked at. Raises
    `CaseError` for a scan without voxels or with NaN, and `RunError` for a device that is not there, too little memory,
    or a network that overflows.
    """
    recipe = (recipe or SegmentRecipe()).at_point(model.spec)
    device = choose_device(device) if isinstance(device, str) else device
    spec = model.spec
    size = recipe.patch or spec.patch
    check_patch(spec.network, size)
    _refuse_unknown(recipe, spec.classes)
    batch = windows_at_once(recipe, device, size)
    hu = on_model_grid(ct, spec.spacing_mm)
    levels = np.zeros((len(spec.classes), *hu.data.shape[::-1]), np.uint8).transpose(0, 3, 2, 1)
    body = Box.around(hu.data > spec.window_hu[0])
    if body is None:
        return Prediction(spec.classes, levels, hu.geometry, 0)
    reader = _Reader(model, hu.data[body.slices], size, recipe, device)
    windows, region, known = Windows(body.shape, size, recipe.overlap), None, None
    with torch.inference_mode(), memory_advice("lower batch or patch of the recipe, or work on another --device"):
        if recipe.near_mm is not None:
            least = _least_levels(spec, recipe)
            region, known = find_region(windows, reader, batch, least, recipe.near_mm, hu.geometry.spacing_mm)
        for box, mean in blend(windows, reader, batch, region.wanted if region else None, known):
            require_finite(mean)
            part = levels[(slice(None), *box.shift(body.lower).slices)]
            part[...] = (mean * FULL).round_().to(torch.uint8).cpu().numpy()
            if region:
                part *= region.voxels(box)
    for number, outside in air_around(hu):
        levels[:, outside, number] = 0
    if spec.calibration:
        for number, name in enumerate(spec.classes):
            levels[number] = _rescaled(spec, name)[levels[number]]
    left_out, kept = region.left_out if region else 0, hu if recipe.least_hu else None
    return Prediction(spec.classes, levels, hu.geometry, reader.looked, left_out, kept)


def each_structure(
    prediction: Prediction,
    scan: Geometry,
    recipe: SegmentRecipe,
    organs: Callable[[str], Volume] | None = None,
    case: str = "",
) -> Iterator[tuple[str, Volume | Tumors]]:
    """Name and mask of every organ, and name and `Tumors` of every class of tumors, one at a time.

    recipe: with its operating point, if it has one (`at_point`). An organ comes before its tumors. Only what is
    yielded, and an organ that tumors are to lie in, is held in memory.
    """
    for name in sorted(prediction.classes, key=anatomy.is_lesion):
        if not anatomy.is_lesion(name):
            levels = prediction.restore(name, scan)
            yield name, Volume(find_organ(levels, recipe.threshold_of(name), recipe.part_share), scan)
            continue
        levels = tumor_levels(name, prediction, scan, recipe, organs)
        organ = name.removesuffix("_lesion")
        yield name, find_tumors(levels, scan, organ, recipe.cut_of(name), recipe.candidates, case, prediction.hu)


def tumor_levels(
    name: str,
    prediction: Prediction,
    scan: Geometry,
    recipe: SegmentRecipe,
    organs: Callable[[str], Volume] | None = None,
) -> Array:
    """Levels (uint8) of a class of tumors on the scan's voxels, 0 where the recipe allows none (`inside_organ`)."""
    levels = prediction.restore(name, scan)
    if recipe.inside_organ != "no":
        place = _organ(name.removesuffix("_lesion"), prediction, scan, recipe, organs)
        _keep_inside(levels, place, scan, recipe.margin_mm)
    return levels


def estimate_memory(
    spec: ModelSpec, scan: Geometry, recipe: SegmentRecipe | None = None, device: str = "auto"
) -> MemoryEstimate:
    """What segmenting a scan of this geometry will take; `str` of it is a sentence."""
    recipe = recipe or SegmentRecipe()
    size = recipe.patch or spec.patch
    batch = windows_at_once(recipe, choose_device(device), size)
    return MemoryEstimate.of(spec, scan, size, batch, 0 if recipe.near_mm is None else KEPT_BYTES)


def windows_at_once(recipe: SegmentRecipe, device: torch.device, size: Triple) -> int:
    """How many windows of a size are looked at at once.

    On a CPU at least two: torch (2.13) convolves a single small window four times as slowly as each of two.
    """
    return recipe.batch or (8 if device.type == "cuda" else min(max(_CPU_VOXELS // math.prod(size), 2), 4))


class _Reader:
    """Looks at windows of a scan: HU -> what the network says, as probabilities (C, *size).

    A window in which everything is clipped to black is looked at once, for all of its kind.
    """

    def __init__(self, model: Model, hu: Array, size: Triple, recipe: SegmentRecipe, device: torch.device) -> None:
        self.net = model.net.to(device).eval()
        self.hu, self.size, self.device = hu, size, device
        self.low, self.high = model.spec.window_hu
        self.flips = [
            [2 + "RAS".index(axis) for axis in axes]
            for count in range(len(recipe.flips) + 1)
            for axes in itertools.combinations(recipe.flips, count)
        ]
        self.precision = choose_precision(recipe.precision, device)
        self.paired = device.type == "cpu" and recipe.batch != 1
        self.looked = 0

    def __call__(self, corners: Sequence[Triple]) -> list[torch.Tensor]:
        windows = [self._cut(corner) for corner in corners]
        lit = [bool(window.max() > self.low) for window in windows]
        said = iter(self._ask([window for window, there in zip(windows, lit, strict=True) if there]))
        return [next(said) if there else self._black for there in lit]

    @cached_property
    def _black(self) -> torch.Tensor:
        return self._ask([np.full(self.size, self.low, np.float32)])[0]

    def _cut(self, corner: Triple) -> Array:
        i, j, k = (low + n for low, n in zip(corner, self.size, strict=True))
        box = Box(corner, (i, j, k))
        inside = box.clip(self.hu.shape)
        if inside == box:
            return self.hu[box.slices]
        window = np.full(self.size, PADDING_HU, self.hu.dtype)
        window[inside.seen_from(box).slices] = self.hu[inside.slices]
        return window

    def _ask(self, windows: Sequence[Array]) -> torch.Tensor:
        if not windows:
            return torch.empty(0)
        self.looked += len(windows)
        # what is said of a window must not depend on whether another came with it: see windows_at_once
        asked = list(windows) * 2 if self.paired and len(windows) == 1 else windows
        image = torch.from_numpy(np.stack(asked)[:, None]).to(self.device, torch.float32)
        image = image.sub_(self.low).div_(self.high - self.low).clamp_(0, 1)
        mean: torch.Tensor | None = None
        for flip in self.flips:
            with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
                logits = self.net(image.flip(flip) if flip else image)
            probability = logits.float().sigmoid_()
            probability = probability.flip(flip) if flip else probability
            mean = probability if mean is None else mean.add_(probability)
        assert mean is not None
        mean = mean[: len(windows)]
        return mean if len(self.flips) == 1 else mean.div_(len(self.flips))


def _rescaled(spec: ModelSpec, name: str) -> Array:
    """The level (256,) that each level of a class becomes by the model's calibration."""
    return rescaled(spec.calibration.scaling(name) if spec.calibration else Scaling())


def _least_levels(spec: ModelSpec, recipe: SegmentRecipe) -> list[int]:
    """The level of each class, as the network gives it, from which a voxel is found by a first look.

    Tumors lie in organs, so they are found (from their candidates on) only by models that know no organ.
    """
    least = []
    for name in spec.classes:
        lesion, threshold = anatomy.is_lesion(name), recipe.threshold_of(name)
        counts = not lesion or all(anatomy.is_lesion(other) for other in spec.classes)
        level = least_level(min(threshold, recipe.candidates) if lesion else threshold)
        least.append(int(np.argmax(_rescaled(spec, name) >= level)) if counts else FULL + 1)
    return least


def _refuse_unknown(recipe: SegmentRecipe, classes: Sequence[str]) -> None:
    asked = {"threshold": recipe.thresholds, "peak": recipe.peaks, "smallest lesion": recipe.smallest_each_mm3}
    asked["least HU"] = recipe.least_hu
    for word, names in asked.items():
        for name in names:
            if name not in classes:
                raise RecipeError(f"a {word} for {name}, which the model does not know", expected=", ".join(classes))
    if recipe.inside_organ == "predicted":
        for name in classes:
            if anatomy.is_lesion(name) and name.removesuffix("_lesion") not in classes:
                raise RecipeError(
                    f"the model does not predict the organ of {name}", expected=", ".join(classes),
                    fix="say --set inside_organ=given, for cases with masks of it, or no",
                )  # fmt: skip


def _organ(
    name: str, prediction: Prediction, scan: Geometry, recipe: SegmentRecipe, organs: Callable[[str], Volume] | None
) -> Array:
    if recipe.inside_organ == "predicted":
        return find_organ(prediction.restore(name, scan), recipe.threshold_of(name), recipe.part_share)
    if organs is None:
        raise CaseError(f"no mask of the {name} is given", fix="say --set inside_organ=predicted")
    mask = organs(name)
    scan.require_same(mask.geometry, name)
    return mask.data


def _keep_inside(levels: Array, organ: Array, scan: Geometry, margin_mm: float) -> None:
    """Puts levels further from an organ than the margin to 0, in place."""
    allowed, box = near(organ, scan, margin_mm)
    kept = levels[box.slices] * allowed
    levels[...] = 0
    levels[box.slices] = kept
