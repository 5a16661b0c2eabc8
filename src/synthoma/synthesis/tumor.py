"""The contract of synthesis: the plan of a tumor, the tumor, the verdict on it, and the generator that makes it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import numpy as np
import pydantic
from pydantic import Field

from synthoma import anatomy
from synthoma.cases import equivalent_diameter_mm
from synthoma.errors import CaseError
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.volume import Array, Box, Geometry, Volume

if TYPE_CHECKING:
    from synthoma.synthesis.location import OrganModel

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
Ball = tuple[Vector, float]  # center and radius in mm
Measure = Callable[[Box, Array], Mapping[str, float]]  # box and alpha of a tumor -> scores by name
Critic = Callable[[Volume, Volume], float]  # CT around a lesion, and its mask on the same grid -> score
DISPLACEMENT_REACH = 2.5  # half-axes from the center at which displaced tissue comes to rest
_VECTORS = ("center_mm", "axes_mm", "orientation", "noise_from_mm")

_ORGANS = f"^({'|'.join(anatomy.ORGANS)})$"
# What a plan from a file may hold; far beyond any real tumor, and small enough to be rendered.
Coordinate = Annotated[float, Field(ge=-1e4, le=1e4, allow_inf_nan=False)]
Length = Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)]
HU = Annotated[float, Field(ge=-2000, le=5000, allow_inf_nan=False)]

Details = TypeVar("Details")


@dataclass(frozen=True)
class TumorPlan:
    """Everything random about one tumor, decided before a voxel is touched: plain data, JSON and Parquet.

    center_mm: RAS+; of a wall tumor, the point of the organ's outer surface that it grows from.
    axes_mm: half-axes; of a wall tumor half its length along the organ, half its arc around the organ, its thickness.
    orientation: columns of the rotation from the tumor's frame to RAS+, as a unit quaternion (w, x, y, z).
    volume_mm3: planned. radius_mm: of a ball around the center that holds the tumor, all but rare bumps.
    contrast_hu: mean inside minus `base_hu`, the organ's mean in this scan.
    edge_mm, blur_mm: SD of the tumor's own border, and of the scanner's in-plane blur, which adds to it.
    noise_hu, noise_from_mm: SD of the scan's noise, and the place where it is learned for voxels that replace gas,
      stool, fat or vessels.
    noise_by: how tissue whose noise stays is told from vessels and fat where voxels are as large as 1.6 mm: each
      `voxel` alone, as before manifests of format 4, which took large noise for vessels; or with its `neighbors`.
    seed: of everything that is drawn while the tumor is rendered.
    displacement_mm, displacement_reach: how far the border moves its neighbors (mass effect), and where that ends, in
      half-axes; 0 mm for no mass effect.
    relaxed: how often the wanted depth was widened before the organ had a place.
    generator: who renders it. details: what only that generator reads, as JSON data.
    """

    organ: Annotated[str, Field(pattern=_ORGANS)]
    center_mm: tuple[Coordinate, Coordinate, Coordinate]
    axes_mm: tuple[Length, Length, Length]
    orientation: Quaternion
    volume_mm3: Annotated[float, Field(gt=0, le=3e7, allow_inf_nan=False)]
    radius_mm: Annotated[float, Field(gt=0, le=500, allow_inf_nan=False)]
    base_hu: HU
    contrast_hu: HU
    edge_mm: Length
    blur_mm: Length
    noise_hu: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
    noise_from_mm: tuple[Coordinate, Coordinate, Coordinate]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    displacement_mm: Length = 0.0
    displacement_reach: Annotated[float, Field(gt=1, le=10)] = DISPLACEMENT_REACH
    relaxed: Annotated[int, Field(ge=0)] = 0
    generator: str = "rules"
    noise_by: Literal["voxel", "neighbors"] = "voxel"
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def equivalent_diameter_mm(self) -> float:
        """Of the ball of the planned volume."""
        return equivalent_diameter_mm(self.volume_mm3)

    @property
    def rotation(self) -> Array:
        """(3, 3): the tumor's frame to RAS+."""
        return rotation_of(self.orientation)

    def details_as(self, kind: type[Details]) -> Details:
        """The details as a dataclass of the generator; keys of other dataclasses are left out.

        Raises `CaseError` for values that its annotations refuse.
        """
        known: dict[Any, Any] = self.__dict__.setdefault("_details_as", {})  # asked for ten times while it is rendered
        if kind not in known:
            names = kind.__dataclass_fields__  # type: ignore[attr-defined]
            known[kind] = _checked(kind, {name: value for name, value in self.details.items() if name in names})
        found: Details = known[kind]
        return found

    def as_dict(self) -> dict[str, Any]:
        """JSON data from which `from_dict` gives an equal plan."""
        plain = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return plain | {name: list(plain[name]) for name in _VECTORS} | {"details": dict(sorted(self.details.items()))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TumorPlan:
        """The plan that `as_dict` wrote. Raises `CaseError` for what is no plan, or has absurd numbers."""
        plan = _checked(cls, data)
        if abs(sum(part * part for part in plan.orientation) - 1) > 1e-3:
            raise CaseError("the plan of a tumor has an orientation that is no rotation", found=str(plan.orientation))
        if plan.displacement_mm and plan.displacement_mm >= 0.9 * min(plan.axes_mm):
            raise CaseError("the plan of a tumor displaces more than it holds", found=f"{plan.displacement_mm} mm")
        return plan


def rotation_of(orientation: Quaternion) -> Array:
    """(3, 3): the rotation of a unit quaternion (w, x, y, z)."""
    w, x, y, z = orientation
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@cache
def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(kind)


def _checked(kind: type[Details], data: Any) -> Details:
    """The dataclass with these values, checked against its annotations."""
    adapter: pydantic.TypeAdapter[Details] = _adapter(kind)  # type: ignore[arg-type]
    try:
        return adapter.validate_python(data)
    except pydantic.ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise CaseError(
            f"the plan of a tumor has a wrong {key or 'form'}", found=repr(fault["input"])[:80], expected=fault["msg"]
        ) from error


def no_scores(box: Box, alpha: Array) -> Mapping[str, float]:
    """The measure of a tumor about which its generator has nothing more to say."""
    del box, alpha
    return {}


@dataclass(frozen=True, eq=False)
class Tumor:
    """A rendered tumor on the box around it, not yet in the scan.

    box: in voxels of the scan; it may reach outside. alpha: float32 (box), share of each voxel that is tumor.
    tissue: HU without the scan's noise, float32 (box), meaningful where alpha > 0; or a function that makes them, which
      is called if a voxel is to be filled.
    follows_organ: the organ's shape decides on the volume as well, so it may differ more from the plan.
    measure: further scores of the tumor, given the box and the alpha that the scan has room for.
    """

    plan: TumorPlan
    box: Box
    alpha: Array
    tissue: Array | Callable[[], Array]
    follows_organ: bool = False
    measure: Measure = no_scores

    @cached_property
    def hu(self) -> Array:
        """The tissue, float32 (box)."""
        return self.tissue() if callable(self.tissue) else self.tissue

    @cached_property
    def mask(self) -> Array:
        """The label, bool (box): where at least half of the voxel is tumor."""
        return np.asarray(self.alpha >= 0.5)

    def within(self, shape: Sequence[int]) -> Tumor:
        """The part that lies in a scan of this shape. Raises `CaseError` if there is none."""
        box = self.box.clip(shape)
        if 0 in box.shape:
            raise CaseError(f"a tumor planned at {self.plan.center_mm} mm lies outside the scan")
        if box == self.box:
            return self
        part = box.seen_from(self.box).slices
        return dataclasses.replace(self, box=box, alpha=self.alpha[part], tissue=lambda: self.hu[part])


@dataclass(frozen=True)
class Verdict:
    """Whether a tumor is fit to train on, why not, and the figures it was judged by."""

    accepted: bool
    reason: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """The tumor that a generator is asked to draw.

    diameter_mm: of the ball of the wanted volume. others: tumors of the same organ that keep their place. seed: for
    the plan. attempt: 0 for the first plan of a tumor, more after plans that were rejected.
    """

    recipe: SynthesisRecipe
    diameter_mm: float
    others: Sequence[TumorPlan] = ()
    seed: int = 0
    attempt: int = 0

    @property
    def taken(self) -> list[Ball]:
        """The balls that hold the other tumors."""
        return [(plan.center_mm, plan.radius_mm) for plan in self.others]


class Generator(ABC):
    """Draws plans of tumors and renders them; the one extension point, by name or `module:Class`.

    There is one instance per process, name and device, built when it is first asked for. device: where the generator
    computes, if it has a choice. Nothing else in synthesis knows one generator from another.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    @abstractmethod
    def draw(self, organ: OrganModel, request: Request, rng: np.random.Generator) -> TumorPlan:
        """A plan for the request, in a place of the organ; `drawing.complete_plan` fills in what all plans have.

        Raises `CaseError` if the organ has no room.
        """

    @abstractmethod
    def reach(self, plan: TumorPlan) -> float:
        """How far from its center, in mm, the plan needs to know the organ's mask."""

    @abstractmethod
    def render(self, ct: Volume, organ: Volume, plan: TumorPlan) -> Tumor:
        """The tumor of the plan on the grid of `ct`; nothing random is left.

        organ: its mask (bool), whole or cropped, `reach` around the center as far as the scan goes. What else lies
        there is no concern of the generator: insertion keeps tumors out of other tissue. What reaches outside the scan
        is cut off. Raises `CaseError` if the tumor cannot be made there.
        """

    def render_all(self, jobs: Sequence[tuple[Volume, Volume, TumorPlan]]) -> list[Tumor]:
        """Many tumors, each as `render` makes it; a generator that computes in batches does so here."""
        return [self.render(ct, organ, plan) for ct, organ, plan in jobs]

    def box(self, plan: TumorPlan, geometry: Geometry) -> Box:
        """The voxels of a grid that the tumor may fill; the box may reach outside the grid."""
        return geometry.box_around(plan.center_mm, self.reach(plan))

    def outer_box(self, plan: TumorPlan, geometry: Geometry) -> Box:
        """A box that holds `box`, at little cost."""
        return self.box(plan, geometry)
