"""Tumors whose tissue a network makes, inside the body that rules draw: `adversarial` and `diffusion` models.

Shape, place and contrast are drawn as by the rules, so masks are exact. The network sees the scan around the tumor on
a grid of its own and gives HU around the tumor's mean; blending adds the scan's noise as for any tumor.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from synthoma import disk
from synthoma.errors import CaseError
from synthoma.extras import need
from synthoma.learning.looks import BINS, Look, choose_look
from synthoma.learning.turns import Turn
from synthoma.seeds import rng_for
from synthoma.synthesis import drawing
from synthoma.synthesis.bodies.body import Body, bounding_radius_mm, draw_surface, rounded_surface
from synthoma.synthesis.bodies.forms import FORMS, BodyGenerator, form_of
from synthoma.synthesis.drawing import rounded
from synthoma.synthesis.location import OrganModel
from synthoma.synthesis.tumor import HU, Request, Tumor, TumorPlan
from synthoma.volume import Array, Box, Floats, Geometry, Triple, Volume, triple

if TYPE_CHECKING:
    from synthoma.learning.tissue import GeneratorSpec, TissueModel

log = logging.getLogger(__name__)

_SAME_SPACING = 0.02  # relative difference up to which a scan's voxels are taken for the network's
_BEYOND_MM = 10.0  # how far a body that follows its organ may come out of where the organ is looked at


@dataclass(frozen=True)
class Learned:
    """What only a plan of a learned generator holds.

    model: digest of its file. phase: of the scan. rim_hu, core_hu, histogram, trend: of the wanted look, see
    `learning.looks`; a plan without a trend takes any. turned: whether the network sees the scan mirrored and turned by
    chance; in plans of before it does not, and an adversarial network puts the dark half on the same side always.
    grid: what the network's voxels lie around: all that the plan may `reach`, a cube, or the `body` in its place; those
    of a wall reach much further than they fill (before manifests of format 4, theirs were cubes too).
    """

    model: str
    phase: str = ""
    grid: Literal["reach", "body"] = "reach"
    rim_hu: HU = 0.0
    core_hu: HU = 0.0
    histogram: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=BINS, max_length=BINS)] = (
        1 / BINS,
    ) * BINS
    trend: Annotated[float, Field(ge=0, le=1)] = 1.0
    turned: bool = False

    def look(self, plan: TumorPlan) -> Look:
        """What the network is asked for."""
        diameter = plan.equivalent_diameter_mm
        shells = self.rim_hu, self.core_hu
        return Look(plan.organ, self.phase, diameter, plan.contrast_hu, *shells, self.histogram, self.trend)


class LearnedGenerator(BodyGenerator):
    """The generator of a model file. The file is read when the first tumor is drawn or rendered."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        super().__init__(device)
        self.path = path
        self._told: set[str] = set()

    @cached_property
    def model(self) -> TissueModel:
        """The network and what it learned from; `MissingExtraError` without torch, `RunError` without the device."""
        need("torch", extra="train")
        from synthoma.learning.loop import choose_device
        from synthoma.learning.tissue import load_generator

        return load_generator(self.path, choose_device(self.device))

    @cached_property
    def digest(self) -> str:
        """Of the file."""
        return disk.digest(self.path)

    @cached_property
    def looks(self) -> list[Look]:
        """Of the lesions that it learned from."""
        from synthoma.learning.tissue import looks_of

        return looks_of(self.model)

    def draw(self, organ: OrganModel, request: Request, rng: np.random.Generator) -> TumorPlan:
        """A plan with surface and place as real tumors have them, and the look of a lesion that it learned from.

        The contrast is the recipe's or the prior's; with the recipe's `as_learned` it is that lesion's too. Raises
        `CaseError` for `as_learned` in an organ whose lesions it has not learned.
        """
        as_learned = request.recipe.as_learned
        self._tell_if_unseen(organ.organ, as_learned)
        surface = draw_surface(organ, request.diameter_mm, rng)
        form = FORMS[surface.form]
        placed = form.place(organ, request, surface, rng)
        contrast = drawing.contrast_hu(organ, request.recipe, rng)
        edge = drawing.edge_mm(organ, rng)
        displaces = form.has_mass_effect and drawing.has_mass_effect(
            organ, request, placed.center_mm, placed.axes_mm, rng
        )
        displacement = drawing.displacement_mm(request.recipe, placed.axes_mm, rng) if displaces else 0.0
        wanted = None if as_learned else contrast
        look = choose_look(self.looks, organ.organ, organ.phase, request.diameter_mm, wanted, rng)
        axes, details = rounded(placed.axes_mm, 3), rounded_surface(placed.surface)
        w, *xyz = placed.orientation
        details |= {
            "model": self.digest,
            "phase": organ.phase,
            "rim_hu": round(look.rim_hu, 1),
            "core_hu": round(look.core_hu, 1),
            "histogram": [round(share, 3) for share in look.histogram],
            "trend": round(look.trend, 3),
            "turned": True,
        }
        if form.follows_organ:
            details["grid"] = "body"
        return drawing.common_plan(
            organ,
            request,
            placed.center_mm,
            placed.axes_mm,
            orientation=(round(w, 6), *rounded(xyz, 6)),
            volume_mm3=form.volume_mm3(axes),
            radius_mm=bounding_radius_mm(axes, details["roughness"]),
            contrast_hu=round(look.contrast_hu, 1) if as_learned else contrast,
            edge_mm=edge,
            displacement_mm=displacement,
            relaxed=placed.relaxed,
            details=details,
        )

    def reach(self, plan: TumorPlan) -> float:
        """The network sees the scan as far as its crop goes."""
        spec, reach = self.model.spec, super().reach(plan)
        if plan.details_as(Learned).grid == "body":
            # the body and the center lie in the crop, which is no longer than they are, or than it must be
            padding_mm = (spec.network.multiple + 2) * spec.spacing_mm
            return max(reach + padding_mm, spec.size * spec.spacing_mm) + _BEYOND_MM
        return max(reach, _side(2 * reach, spec) * spec.spacing_mm / 2)

    def render(self, ct: Volume, organ: Volume, plan: TumorPlan) -> Tumor:
        """The tumor of `plan`; its mean away from the border is the planned one.

        Raises `CaseError` for a plan of another model.
        """
        learned = plan.details_as(Learned)
        if learned.model != self.digest:
            raise CaseError(
                "the tumor was planned with another model",
                found=f"{self.path.name} with digest {self.digest}",
                expected=learned.model,
                fix="say --generator with the model of that digest, or synthesize anew",
            )
        form = form_of(plan)
        body = form.make(plan, ct.geometry, organ, False)
        if learned.grid == "body":
            grid = _NetworkGrid.around_body(plan, ct.geometry, body, self.model.spec)
        else:
            grid = _NetworkGrid.around(plan, ct.geometry, self.model.spec, 2 * super().reach(plan))
        alpha = grid.sample(body.alpha, body.box)
        # now, since the scan may have changed before the tissue is asked for
        around = grid.sample(ct.data, Box.whole(ct.data.shape), edge=True)

        def tissue() -> Floats:
            hu = grid.back(self._field(learned.look(plan), alpha, around, plan), body.box)
            return _as_planned(hu, body.alpha, plan, learned.look(plan))

        return Tumor(plan, body.box, body.alpha, tissue, form.follows_organ, body.measure).within(ct.data.shape)

    def _tell_if_unseen(self, organ: str, as_learned: bool) -> None:
        """A warning, once, of an organ whose lesions are new to the network; `CaseError` with as_learned."""
        seen = self.model.spec.organs
        if organ not in seen and as_learned:
            raise CaseError(
                f"{self.path.name} learned no lesion of the {organ}, so it knows no contrast there",
                found=f"as_learned, and lesions of {', '.join(seen)}",
                fix="leave as_learned out, or give contrast_hu: the tissue is then that of other organs' lesions",
            )
        if organ in seen or organ in self._told:
            return
        self._told.add(organ)
        log.warning(
            "%s learned lesions of %s and none of the %s: it gives tumors there the looks of the others; "
            "look at some, or train it on lesions of the %s",
            self.path.name, ", ".join(self.model.spec.organs), organ, organ,
        )  # fmt: skip

    def _field(self, look: Look, alpha: Floats, hu: Floats, plan: TumorPlan) -> Floats:
        """HU around the tumor's mean on the network's grid."""
        import torch

        from synthoma.learning.tissue import leveled, surroundings, tissue_field

        model = self.model
        device = next(model.net.parameters()).device
        turn = Turn((False, False, False), False)
        if plan.details_as(Learned).turned:
            turn = Turn.draw(rng_for(plan.seed, "turn"))
        alpha, hu = turn.all((alpha, hu))
        noise = rng_for(plan.seed, "tissue").standard_normal(alpha.shape, np.float32)

        def tensor(values: Array) -> Any:
            # twice the same: torch's fast convolutions on a CPU begin at batches of 2
            return torch.from_numpy(np.ascontiguousarray(values))[None].repeat(2, *[1] * values.ndim).to(device)

        shares = tensor(alpha[None])
        with torch.inference_mode():
            around = surroundings(tensor(hu[None]), shares, torch.full((2,), plan.base_hu, device=device))
            made = tissue_field(model.net, model.spec, tensor(noise[None]), shares, around, tensor(look.condition()))
            made = leveled(made, shares, torch.full((2,), look.trend, device=device))
        return turn.back(made[0, 0].cpu().numpy())


def _as_planned(hu: Floats, alpha: Floats, plan: TumorPlan, look: Look) -> Floats:
    """The network's tissue within the range of its look, and with the mean that is planned away from the border."""
    full = alpha > 0.95
    inside = full if full.any() else alpha >= 0.5
    # what the look knows nothing of is a fault of the network: thin walls are where it happens
    hu = np.clip(hu - _mean(hu, inside), *look.range_hu)
    return np.asarray(hu + np.float32(plan.base_hu + plan.contrast_hu - _mean(hu, inside)), np.float32)


def _mean(values: Floats, inside: Array) -> np.float32:
    """Of the voxels inside; 0 for none."""
    chosen = values[inside]
    return np.float32(chosen.mean(dtype=np.float64)) if chosen.size else np.float32(0)


def _steps(scan: Geometry, spec: GeneratorSpec) -> tuple[float, ...]:
    """The scan's voxels to a voxel of the network, along each axis."""
    steps = [spec.spacing_mm / own for own in scan.spacing_mm]
    return tuple(1.0 if abs(step - 1) < _SAME_SPACING else step for step in steps)


def _side(extent_mm: float, spec: GeneratorSpec) -> int:
    """Voxels along a side of the network's grid."""
    from synthoma.learning.tissue import padded_side

    return padded_side(int(np.ceil(extent_mm / spec.spacing_mm)), spec)


@dataclass(frozen=True)
class _NetworkGrid:
    """A box of a network's voxels around a voxel of a scan, along the scan's axes.

    middle: that voxel. steps: the scan's voxels to a voxel of the network. Positions are told from the middle, so a
    crop of the scan gives the same values as all of it.
    """

    middle: Triple
    steps: tuple[float, ...]
    shape: Triple

    @classmethod
    def around(cls, plan: TumorPlan, scan: Geometry, spec: GeneratorSpec, extent_mm: float) -> _NetworkGrid:
        """A cube around the plan's center."""
        side = _side(extent_mm, spec)
        return cls(triple(np.round(scan.to_ijk(plan.center_mm))), _steps(scan, spec), (side, side, side))

    @classmethod
    def around_body(cls, plan: TumorPlan, scan: Geometry, body: Body, spec: GeneratorSpec) -> _NetworkGrid:
        """Around what the body fills, and the plan's center."""
        center = triple(np.round(scan.to_ijk(plan.center_mm)))
        filled = Box.around(body.alpha > 0)
        holds = Box(center, triple(np.add(center, 1)))
        if filled is not None:
            holds = holds.hull(filled.shift(body.box.lower))
        middle = triple((np.add(holds.lower, holds.upper)) // 2)
        lengths = np.multiply(holds.shape, scan.spacing_mm) + 2 * spec.spacing_mm
        return cls(middle, _steps(scan, spec), triple([_side(length, spec) for length in lengths]))

    def sample(self, data: Array, box: Box, edge: bool = False) -> Floats:
        """Values of a box of the scan at the network's voxels; beyond the box 0, or with edge its outermost ones."""
        values = data
        for axis in range(3):
            at = (np.arange(self.shape[axis]) - self.shape[axis] // 2) * self.steps[axis]
            first = self.middle[axis] - box.lower[axis]
            values = _along(values, axis, first, at, edge)
        return values

    def back(self, values: Floats, box: Box) -> Floats:
        """Values of the network's voxels in a box of the scan, in Fortran order."""
        for axis in range(3):
            start = box.lower[axis] - self.middle[axis]
            at = (start + np.arange(box.shape[axis])) / self.steps[axis]
            values = _along(values, axis, self.shape[axis] // 2, at, edge=True)
        return np.asfortranarray(values)


def _along(values: Array, axis: int, first: int, at: Array, edge: bool) -> Floats:
    """Linear interpolation along an axis at `first + at`."""
    low = np.floor(at).astype(np.intp)
    share = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    low += first
    count = values.shape[axis]
    parts = []
    for index in (low, low + 1):
        part = values.take(np.clip(index, 0, count - 1), axis).astype(np.float32, copy=False)
        if not edge:
            outside = (index < 0) | (index >= count)
            part = part * (~outside).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        parts.append(part)
    return np.asarray(parts[0] + (parts[1] - parts[0]) * share, np.float32)
