"""Training patches: every one a pure function of seed, epoch and index, whoever makes it and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar, cast

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.errors import RecipeError
from synthoma.learning.augmentation import (
    Augmentation,
    AugmentationRecipe,
    draw_augmentation,
    resample,
    row_major,
    source_box,
    to_image,
)
from synthoma.learning.entry import Entry
from synthoma.learning.gridding import IGNORED
from synthoma.learning.negatives import read_negatives
from synthoma.learning.sampling import Balance, Places, SyntheticTumor, choose, find_all, turn_of
from synthoma.recipe import Recipe
from synthoma.seeds import rng_for
from synthoma.volume import Array, Box, Volume

Made = TypeVar("Made")
_JITTER = 0.25  # of the patch's size: how far from its middle the voxel that it was chosen for may lie


class PatchRecipe(Recipe):
    """What a training patch is, and what it is centered on.

    size: voxels. spacing_mm: of the training grid; 0 keeps each scan's own. window_hu: shown as 0 to 1, after
    synthesis. per_epoch: patches. lesion_share, organ_share: of patches centered on a tumor, and on an organ; the
    rest lies anywhere in the body. negatives: a file of false alarms that `synthoma negatives` wrote; negative_share:
    of patches centered on one of them, in its case as it is. size_balance: 0 centers on size classes as often as they
    have tumors, 1 on all alike. organ_weights: how often an organ, its tumors and its false alarms are chosen; 1 unless
    given. hosts: which cases may get synthetic tumors. synthetic_share: of patches from hosts, if there are both hosts
    and other cases. weights: of data sets or single cases, how often one of their cases is chosen; 1 unless given.
    """

    size: tuple[int, int, int] = (96, 96, 96)
    spacing_mm: float = Field(1.5, ge=0, le=10)
    window_hu: tuple[float, float] = (-175.0, 250.0)
    per_epoch: int = Field(500, ge=1)
    lesion_share: float = Field(0.5, ge=0, le=1)
    organ_share: float = Field(0.35, ge=0, le=1)
    negatives: str | None = None
    negative_share: float = Field(0.1, ge=0, le=1)
    size_balance: float = Field(0.5, ge=0, le=1)
    organ_weights: dict[str, Annotated[float, Field(gt=0)]] = Field({})
    hosts: Literal["healthy", "all"] = "healthy"
    synthetic_share: float = Field(0.5, ge=0, le=1)
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field({})
    augmentation: AugmentationRecipe = AugmentationRecipe()

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        if min(self.size) < 8:
            raise ValueError(f"size {self.size} is less than 8 voxels")
        if self.window_hu[0] >= self.window_hu[1]:
            raise ValueError(f"window_hu {self.window_hu} is not a range")
        if strange := [name for name in self.organ_weights if name not in anatomy.ORGANS]:
            raise ValueError(f"organ_weights: no organ {strange[0]!r}, but {', '.join(anatomy.ORGANS)}")
        if self.lesion_share + self.organ_share + (self.negative_share if self.negatives else 0) > 1 + 1e-9:
            raise ValueError("lesion_share, organ_share and negative_share are more than 1 together")
        return self


class Augment(Protocol):
    """Online synthesis, as patches see it; it pickles. name: a digest of what `prepare` depends on.

    All follows from its seed, the case and the epoch; a tumor's voxels do not depend on the box that is rendered.
    """

    @property
    def name(self) -> str: ...

    def prepare(self, ct: Volume, masks: Mapping[str, Volume], case: Case) -> dict[str, Array]:
        """What `draw` and `render` need of a case, once for all; kept in the cache. Volumes on the training grid."""

    def draw(self, entry: Entry, epoch: int) -> Sequence[SyntheticTumor]:
        """The tumors of a case in an epoch; none by chance, or if the case can host none."""

    def render(self, entry: Entry, box: Box, drawn: Sequence[SyntheticTumor]) -> tuple[Array, Array]:
        """int16 HU and uint8 labels of a box, which may reach outside, with the tumors that meet it."""


@dataclass(frozen=True, eq=False)
class Patch:
    """One training patch. box: where it lies in the case, before rotation and scaling.

    image: float32 (1, I, J, K) in [0, 1]. target: uint8 0 or 1 (C, I, J, K). annotated: bool (C,); where it is
    False the target is unknown. synthetic: whether a synthetic tumor reaches into it. ignored: bool (1, I, J, K), the
    voxels whose target is unknown though their case is annotated; None for none.
    """

    image: NDArray[np.float32]
    target: NDArray[np.uint8]
    annotated: NDArray[np.bool_]
    case: str
    box: Box
    synthetic: bool
    augmentation: Augmentation
    ignored: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class RawPatch:
    """A patch before tumors, augmentation and window, for `finishing.finish`; it pickles.

    part: what the augment's `cut` gave for the voxels that the patch is made from. reaching: the tumor classes of the
    synthetic tumors that reach into it. The others are those of `Patch`.
    """

    part: Any
    annotated: NDArray[np.bool_]
    case: str
    box: Box
    augmentation: Augmentation
    spacing_mm: tuple[float, float, float]
    reaching: frozenset[str]


@dataclass(frozen=True, eq=False)
class Patches:
    """All patches of a training: `draw(epoch, index)` gives one, the same wherever and in whatever order.

    classes: output channels; an organ (its tumors are part of it), or an organ's lesion. Raises `RecipeError` for
    a class of neither kind, `CaseError` if no case has anything to learn from (see `sampling.find_all`).
    """

    entries: Sequence[Entry]
    recipe: PatchRecipe
    classes: tuple[str, ...]
    augment: Augment | None = None
    seed: int = 0
    places: Places = field(init=False)

    def __post_init__(self) -> None:
        known = [name for organ in anatomy.ORGANS.values() for name in (organ.name, organ.lesion)]
        if strange := [name for name in self.classes if name not in known]:
            raise RecipeError(f"no class {strange[0]!r}", expected=f"one of {', '.join(known)}")
        synthesis, hosts = self.augment is not None, self.recipe.hosts
        negatives = read_negatives(self.recipe.negatives) if self.recipe.negatives else ()
        places = find_all(self.entries, self.classes, synthesis, hosts, self.recipe.weights, negatives)
        object.__setattr__(self, "places", places)

    @property
    def finished_on_device(self) -> bool:
        """Whether the augment renders tumors on a device, so that patches come from `cut` and `finishing.finish`."""
        return bool(getattr(self.augment, "on_device", False))

    def draw(self, epoch: int, index: int) -> Patch:
        """Patch `index` of an epoch. An error names the case it happened in."""
        return self._made(epoch, index, self._cut)

    def cut(self, epoch: int, index: int) -> RawPatch:
        """The same patch, for the device to put tumors into it and to finish it."""
        return self._made(epoch, index, self._raw)

    def _made(
        self, epoch: int, index: int, make: Callable[[Entry, Box, Sequence[SyntheticTumor], Augmentation], Made]
    ) -> Made:
        rng = rng_for(self.seed, "patch", epoch, index)
        turn = turn_of(index, float(rng_for(self.seed, "turn", epoch).random()))
        entry: Entry | None = None

        def tumors(of: Entry) -> Sequence[SyntheticTumor]:
            nonlocal entry
            entry = of
            return self.augment.draw(of, epoch) if self.augment else ()

        try:
            site = choose(self.places, self.entries, self._balance, tumors, turn, rng)
            entry = self.entries[site.entry]
            box = _box_around(site.center, self.recipe.size, entry.geometry.shape, rng)
            return make(entry, box, site.drawn, draw_augmentation(self.recipe.augmentation, rng))
        except Exception as error:
            error.add_note(f"in patch {index} of epoch {epoch}, case {entry.case if entry else 'unknown'}")
            raise

    def annotated(self, entry: Entry) -> NDArray[np.bool_]:
        """Which classes a case annotates (C,)."""
        return np.array([entry.annotates(name) for name in self.classes], bool)

    def _cut(self, entry: Entry, box: Box, drawn: Sequence[SyntheticTumor], augmentation: Augmentation) -> Patch:
        spacing = entry.geometry.spacing_mm
        source = source_box(augmentation, box, spacing)
        if drawn and self.augment:
            hu, labels = self.augment.render(entry, source, drawn)
        else:
            hu, labels = entry.read_hu(source), entry.read_labels(source)
        hu, labels = resample(hu, labels, augmentation, box.shape, spacing)
        target = class_masks(labels, self.classes)
        return Patch(
            image=to_image(hu, augmentation, self.recipe.window_hu, spacing)[None],
            target=target,
            annotated=self.annotated(entry),
            case=entry.case,
            box=box,
            synthetic=self._shows_any(drawn, entry, source, target),
            augmentation=augmentation,
            ignored=ignored[None] if (ignored := labels == IGNORED).any() else None,
        )

    def _raw(self, entry: Entry, box: Box, drawn: Sequence[SyntheticTumor], augmentation: Augmentation) -> RawPatch:
        spacing, augment = entry.geometry.spacing_mm, cast(Any, self.augment)
        source = source_box(augmentation, box, spacing)
        reaching = self._reaching(drawn, entry, source)
        part = augment.cut(entry, source, drawn)
        return RawPatch(part, self.annotated(entry), entry.case, box, augmentation, spacing, reaching)

    def _shows_any(self, drawn: Sequence[SyntheticTumor], entry: Entry, box: Box, target: NDArray[np.uint8]) -> bool:
        """Whether one of these tumors is there: it reaches into the box, and it has not been rejected."""
        shown = {name for name, mask in zip(self.classes, target.view(bool), strict=True) if mask.any()}
        return bool(self._reaching(drawn, entry, box) & shown)

    def _reaching(self, drawn: Sequence[SyntheticTumor], entry: Entry, box: Box) -> frozenset[str]:
        """The tumor classes of those that reach into a box."""
        there = (t for t in drawn if entry.geometry.box_around(t.center_mm, t.reach_mm).meets(box))
        return frozenset(anatomy.organ(tumor.organ).lesion for tumor in there)

    @cached_property
    def _balance(self) -> Balance:
        shares: dict[str, Any] = {name: getattr(self.recipe, name) for name in Balance.__dataclass_fields__}
        return Balance(**shares | ({} if self.recipe.negatives else {"negative_share": 0.0}))


def class_masks(labels: Array, classes: Sequence[str]) -> NDArray[np.uint8]:
    """1 where a voxel belongs to each class, else 0 (C, I, J, K); labels: ids of `anatomy.STRUCTURES`."""
    import cv2

    flat = row_major(labels, labels.dtype).reshape(len(labels), -1)
    return np.stack([cv2.LUT(flat, class_table(name)) for name in classes]).reshape(-1, *labels.shape)


@lru_cache
def class_table(name: str) -> NDArray[np.uint8]:
    """Structure id -> 1 if it belongs to the class; an organ's tumors belong to the organ as well."""
    organ = anatomy.organ(name.removesuffix("_lesion"))
    structures = [organ.lesion] if anatomy.is_lesion(name) else [*organ.parts, organ.lesion]
    table = np.zeros(256, np.uint8)
    table[[anatomy.STRUCTURES[structure] for structure in structures]] = 1
    return table


def _box_around(
    center: tuple[int, int, int], size: tuple[int, int, int], shape: tuple[int, int, int], rng: np.random.Generator
) -> Box:
    """A box of this size that holds the voxel, inside the scan as far as it fits."""
    lower = []
    for at, length, room in zip(center, size, shape, strict=True):
        start = round(at - length / 2 + float(rng.uniform(-_JITTER, _JITTER)) * length)
        # a scan that is smaller than the patch lies in its middle
        lower.append(min(max(start, 0), room - length) if room > length else (room - length) // 2)
    i, j, k = lower
    return Box((i, j, k), (i + size[0], j + size[1], k + size[2]))
