"""Host crops: places in scans where fake lesions go, drawn as `synthesize` would, up to the tissue.

What a network makes is put into a crop by `start + alpha x hu`: exactly what blending does, so a generator learns in
the very scans that it is used in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.errors import CaseError
from synthoma.learning.cache import build_cache
from synthoma.learning.entry import Entry
from synthoma.learning.looks import Look, choose_look, depths
from synthoma.learning.turns import Turn
from synthoma.seeds import rng_for, seed_for
from synthoma.synthesis.generators.rules import Rules
from synthoma.synthesis.insertion import blending, room
from synthoma.synthesis.insertion.scene import Scene, organ_of_labels
from synthoma.synthesis.online.online import Online
from synthoma.synthesis.online.stored import StoredOrgan
from synthoma.synthesis.plan import draw_plans
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.tumor import Tumor, TumorPlan
from synthoma.training.batches import Batch
from synthoma.volume import Box, Floats, Volume, triple

_TRIES = 50  # places asked for a crop, before it is said that there is none
_FIRST_LESION = min(number for name, number in anatomy.STRUCTURES.items() if anatomy.is_lesion(name))


@dataclass(frozen=True, eq=False)
class HostCrop:
    """A place for a fake lesion. All arrays float32 (S, S, S) but `others`, which is bool.

    hu: the scan. alpha: of the lesion. start: the scan without what the lesion replaces, its noise kept. depth: over
    the largest, see `looks.depths`. others: real lesions. look: what is wanted.
    """

    case: str
    hu: Floats
    alpha: Floats
    start: Floats
    depth: Floats
    others: np.ndarray[Any, Any]
    base_hu: float
    look: Look


@dataclass(frozen=True, eq=False)
class Hosts:
    """Fake lesions in the organs of cached cases; `hosts(step)` is a batch, the same wherever it is made."""

    entries: Sequence[Entry]
    online: Online
    looks: Sequence[Look]
    size: int
    batch: int
    seed: int
    _places: tuple[tuple[int, str], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        places = tuple(
            (number, organ) for number, entry in enumerate(self.entries) for organ in self.online.organs(entry, True)
        )
        if not places:
            raise CaseError(
                "no organ can host fake lesions",
                found=f"{len(self.entries)} cases without a mask of {', '.join(self.online.recipe.organs)}",
                fix="give data with organ masks, or set fakes.organs to what there is",
            )
        object.__setattr__(self, "_places", places)

    def __call__(self, step: int) -> Batch:
        """hu, start, alpha, mask, depth (B, 1, S, S, S), others; base, contrast (B,), condition (B, ...), wanted looks.

        wanted: rim, core and histogram (B, 2 + 16). trend: (B,), see `tissue.leveled`. organ: names. case: ids.
        """
        return collate_hosts([self.crop(step * self.batch + place) for place in range(self.batch)])

    def crop(self, number: int) -> HostCrop:
        """Host crop 0, 1, ...; organs come up alike."""
        organs = sorted({organ for _, organ in self._places})
        for attempt in range(_TRIES):
            rng = rng_for(self.seed, "host", number, attempt)
            organ = organs[rng.integers(len(organs))]
            able = [index for index, other in self._places if other == organ]
            entry = self.entries[able[rng.integers(len(able))]]
            try:
                return self._crop(entry, organ, seed_for(self.seed, "host", number, attempt), rng)
            except CaseError:
                continue  # no room there, or no wall
        raise CaseError("no organ has room for fake lesions", found=f"{_TRIES} places tried", fix="smaller diameters")

    def _crop(self, entry: Entry, name: str, seed: int, rng: np.random.Generator) -> HostCrop:
        organ = self.online.organs(entry, True)[name]
        recipe = self.online.recipe.with_changes(organs=(name,), lesions=(1, 1), probability=1.0)
        plan = draw_plans(organ, recipe, seed)[0]
        tumor, start, scene, read = confined(entry, organ, plan)
        look = choose_look(self.looks, name, organ.phase, plan.equivalent_diameter_mm, plan.contrast_hu, rng)
        middle = triple(np.round(entry.geometry.to_ijk(plan.center_mm)))
        box = Box(triple(np.asarray(middle) - self.size // 2), triple(np.asarray(middle) + self.size // 2))
        inside = tumor.box.shift(read.lower)
        hu = np.asarray(entry.read_hu(box), np.float32)
        begin, alpha = hu.copy(), np.zeros_like(hu)
        shared = box.overlap(inside)
        if shared is None or not tumor.mask.any():
            raise CaseError("nothing of the lesion lies in its crop")
        here, there = shared
        begin[here], alpha[here] = start[there], tumor.alpha[there]
        wanted = Look(
            name, organ.phase, plan.equivalent_diameter_mm, plan.contrast_hu, look.rim_hu, look.core_hu,
            look.histogram, look.trend,
        )  # fmt: skip
        others = entry.read_labels(box) >= _FIRST_LESION
        depth = depths(alpha >= 0.5, entry.geometry.spacing_mm)
        del scene
        # as real lesions are: a side of the body tells a discriminator nothing, and a generator has none to prefer
        hu, alpha, begin, depth, others = Turn.draw(rng).all((hu, alpha, begin, depth, others))
        return HostCrop(entry.case, hu, alpha, begin, depth, others, plan.base_hu, wanted)


def confined(entry: Entry, organ: StoredOrgan, plan: TumorPlan) -> tuple[Tumor, Floats, Scene, Box]:
    """The body of a plan where it has room, and what the voxels of its box are without its tissue.

    The box counts voxels of the box read, which is the last one given.
    """
    rules = Rules()
    scan = entry.geometry
    box = rules.box(plan, scan).grow(blending.reach(scan))
    read = box.hull(scan.box_around(plan.center_mm, rules.reach(plan)).grow(1)).clip(scan.shape)
    hu, labels = entry.read_hu(read), entry.read_labels(read)
    scene = Scene.of_labels(Volume(hu, scan.crop(read)), labels, {plan.organ: organ_of_labels(labels, plan.organ)})
    mask = scene.organ(plan.organ, plan.center_mm, rules.reach(plan))
    tumor = rules.render(scene.ct, mask, plan).within(scene.hu.shape)
    tumor = room.place(tumor, scene.ct, mask, scene.occupied(tumor.box, plan.organ))
    before = scene.hu[tumor.box.slices].astype(np.float32)
    noise = blending.noise_inside(scene.ct, tumor, organ.noise)
    return tumor, before + tumor.alpha * (noise - before), scene, read


def collate_hosts(crops: Sequence[HostCrop]) -> Batch:
    """Host crops as one batch; see `Hosts`."""

    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.ascontiguousarray(getattr(crop, name)) for crop in crops])[:, None])

    def numbers(values: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32)

    alpha = stacked("alpha")
    return {
        "hu": stacked("hu"),
        "start": stacked("start"),
        "alpha": alpha,
        "mask": alpha >= 0.5,
        "depth": stacked("depth"),
        "others": stacked("others"),
        "base": numbers([crop.base_hu for crop in crops]),
        "contrast": numbers([crop.look.contrast_hu for crop in crops]),
        "condition": torch.from_numpy(np.stack([crop.look.condition() for crop in crops])),
        "wanted": numbers([[crop.look.rim_hu, crop.look.core_hu, *crop.look.histogram] for crop in crops]),
        "trend": numbers([crop.look.trend for crop in crops]),
        "organ": [crop.look.organ for crop in crops],
        "case": [crop.case for crop in crops],
    }


def open_hosts(
    cases: Sequence[Case], cache: Any, spacing_mm: float, recipe: SynthesisRecipe, looks: Sequence[Look], size: int,
    batch: int, seed: int, workers: int = 0,
) -> Hosts:  # fmt: skip
    """The host crops of some cases; what drawing needs is kept in the cache."""
    online = Online(recipe, 1.0, seed)
    return Hosts(build_cache(cases, cache, spacing_mm, online, workers), online, looks, size, batch, seed)
