"""Who is on the table: drawn first, as plain data; everything in the body follows from it.

Bodies are described in a template: RAS+ mm of an average adult, 0 mm at the center of L4, x to the right, y
forward, z up. A patient is a smooth map from the world to that template, sizes of organs, and a seed for the
fine details.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synthoma.phantom.anatomy.shapes import Curve, Points, spline
from synthoma.seeds import rng_for, seed_for

Array = NDArray[Any]
Sex = Literal["female", "male"]

# SD of ln(size) between healthy adults of one build, per organ
SIZE_SPREAD = {
    "liver": 0.06,
    "spleen": 0.12,
    "kidney": 0.04,
    "kidney_left": 0.02,
    "kidney_right": 0.02,
    "pancreas": 0.08,
    "gall_bladder": 0.14,
    "stomach": 0.12,
    "duodenum": 0.06,
    "colon": 0.09,
    "intestine": 0.06,
    "bladder": 0.15,
    "uterus": 0.05,
    "aorta": 0.07,
    "vessels": 0.07,
    "adrenal": 0.10,
    "heart": 0.06,
}
_SHIFT_SD_MM = (3.5, 3.5, 6.0)
_ORGAN_LAG = 0.6  # of a body's extra length, the share that its organs do not follow
_WAVES = 6
_STRAIN = 0.05  # SD of the stretch that one ripple adds
# ways in which healthy abdomens differ beyond size; each is drawn in SD
TRAITS = (
    "liver_slope",
    "left_lobe",
    "colon_sag",
    "colon_gas",
    "stomach_fill",
    "stomach_gas",
    "bladder_fill",
    "rectum_fill",
)


@dataclass(frozen=True)
class Wave:
    """One ripple of the map from world to template: push (3,) in mm times sin(rate . position + phase)."""

    push_mm: tuple[float, float, float]
    rate: tuple[float, float, float]
    phase: float


@dataclass(frozen=True)
class Patient:
    """Everything that tells one body from another.

    scale: world mm per template mm along x, y, z. subcutaneous_mm: fat under the skin at the flank.
    visceral: 0 lean to 1 much fat between the organs. sizes and shifts_mm: per organ. traits: see `TRAITS`.
    shift_hu: by tissue, what age and habit changed (`ageing`), or contrast in the bowel. arms: whether they lie beside
    the body. ascites_mm: how thick the fluid under the wall is. absent: organs that were taken out.
    """

    seed: int
    sex: Sex
    scale: tuple[float, float, float]
    subcutaneous_mm: float
    visceral: float
    waves: tuple[Wave, ...]
    sizes: dict[str, float]
    shifts_mm: dict[str, tuple[float, float, float]]
    traits: dict[str, float]
    shift_hu: dict[str, float] = field(default_factory=dict)
    arms: bool = False
    ascites_mm: float = 0.0
    absent: tuple[str, ...] = ()

    def to_template(self, world: Points) -> Points:
        """Template positions of world positions; the three arrays may broadcast against each other."""
        bends: list[Any] = [np.float32(0)] * 3
        for wave in self.waves:
            angle = sum(np.float32(rate) * axis for rate, axis in zip(wave.rate, world, strict=True))
            ripple = np.sin(angle + np.float32(wave.phase))
            bends = [bend + np.float32(push) * ripple for bend, push in zip(bends, wave.push_mm, strict=True)]
        return Points(*(axis / np.float32(s) + bend for axis, s, bend in zip(world, self.scale, bends, strict=True)))

    def to_world(self, template: Array) -> Array:
        """World positions (N, 3) of template positions (N, 3), to about 0.01 mm."""
        template = np.asarray(template, float)
        world = template * self.scale
        for _ in range(12):
            seen = np.stack(self.to_template(Points(*(world[:, axis] for axis in range(3)))), axis=1)
            world = world + (template - seen) * self.scale
        return world

    def frame(self, organ: str, pivot: tuple[float, float, float], points: Points) -> Points:
        """Positions relative to `pivot` as the organ sees them, its own size and place undone.

        Organs grow less than bodies do.
        """
        moved = [p + s for p, s in zip(pivot, self.shifts_mm.get(organ, (0, 0, 0)), strict=True)]
        body = float(np.prod(self.scale)) ** (1 / 3)
        size = np.float32(body**_ORGAN_LAG / self.sizes.get(organ, 1.0))
        return Points(*(axis * size for axis in points.shifted(moved)))

    def curve(self, organ: str, knots: Any, step_mm: float = 4.0, jitter_mm: float = 0.0) -> Curve:
        """A world curve through template knots (N, 4: x, y, z and radius in mm), moved and sized as the organ is."""
        knots = np.array(knots, float)
        middle = knots[:, :3].mean(axis=0)
        size = self.sizes.get(organ, 1.0)
        knots[:, :3] += np.asarray(self.shifts_mm.get(organ, (0, 0, 0)))
        knots[:, :3] += (size - 1) * 0.3 * (knots[:, :3] - middle)
        knots[:, 3] *= size
        if jitter_mm:
            knots[:, :3] += rng_for(self.seed, "jitter", organ).normal(0, jitter_mm, knots[:, :3].shape)
        return spline(np.column_stack([self.to_world(knots[:, :3]), knots[:, 3]]), step_mm)

    def rng(self, *keys: str | int) -> np.random.Generator:
        """A generator for one detail of this patient."""
        return rng_for(self.seed, *keys)


def draw_patient(seed: int, sex: Sex | Literal["any"] = "any", habitus: float = 0.0) -> Patient:
    """A healthy adult; the same seed gives the same adult. habitus: mean weight of those drawn from, in SD."""
    rng = rng_for(seed, "patient")
    drawn: Sex = "female" if rng.random() < 0.5 else "male"
    if sex != "any":
        drawn = sex
    height = rng.normal(0.98 if drawn == "female" else 1.04, 0.035)
    weight = float(np.clip(rng.normal(0, 1) + habitus, -1.8, 2.2))
    scale = (
        height * (1 + 0.035 * weight) * rng.normal(1, 0.02),
        0.94 * height * (1 + 0.055 * weight) * rng.normal(1, 0.03),
        height * rng.normal(1, 0.02),
    )
    fat_mm = (21 if drawn == "female" else 15) * float(np.exp(0.42 * weight + rng.normal(0, 0.2)))
    visceral = float(np.clip(0.45 + 0.25 * weight + rng.normal(0, 0.1) - 0.1 * (drawn == "female"), 0, 1))
    sizes = {organ: float(np.exp(rng.normal(0, spread))) for organ, spread in SIZE_SPREAD.items()}
    for side in ("kidney_left", "kidney_right"):
        sizes[side] *= sizes["kidney"]
    shifts = {organ: _triple(np.clip(rng.normal(0, 1, 3), -2, 2) * _SHIFT_SD_MM) for organ in SIZE_SPREAD}
    return Patient(
        seed=seed_for(seed, "details"),
        sex=drawn,
        scale=_triple(scale),
        subcutaneous_mm=float(np.clip(fat_mm, 6, 50)),
        visceral=visceral,
        waves=tuple(_draw_wave(rng) for _ in range(_WAVES)),
        sizes=sizes,
        shifts_mm=shifts,
        traits={trait: float(np.clip(rng.normal(), -2, 2)) for trait in TRAITS},
    )


def _draw_wave(rng: np.random.Generator) -> Wave:
    direction = rng.normal(0, 1, 3)
    direction /= np.linalg.norm(direction)
    rate = 2 * np.pi / rng.uniform(180, 420)
    push = rng.normal(0, _STRAIN / rate, 3)
    return Wave(_triple(push), _triple(rate * direction), float(rng.uniform(0, 2 * np.pi)))


def _triple(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
