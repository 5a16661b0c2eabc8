"""A tumor that was put in, to look at: the scan around it before and after, and its mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from synthoma.errors import CaseError
from synthoma.volume import Array, Box, Volume

if TYPE_CHECKING:
    from synthoma.synthesis.pipeline import Synthesis

_MARGIN_MM = 30.0  # around a tumor, and as much again as it is long


@dataclass(frozen=True, eq=False)
class TumorView:
    """The scan around a tumor: without any synthetic tumor, with all of them, the tumor's own mask; a line about it.

    In a notebook it shows itself as a picture.
    """

    before: Volume
    after: Volume
    mask: Volume
    caption: str

    def __repr__(self) -> str:
        return f"<TumorView {self.caption}>"

    def _repr_png_(self) -> bytes:
        from synthoma.pictures import as_png, show_lesion

        return as_png(lambda file: show_lesion(self.before, self.after, self.mask, file, self.caption))


def view_tumor(synthesis: Synthesis, number: int) -> TumorView:
    """Tumor 1, 2, ... of a synthesis, in the order they were put in; `CaseError` for a number that there is none of."""
    if not 1 <= number <= len(synthesis.inserted):
        count = len(synthesis.inserted)
        raise CaseError(
            f"no tumor {number}",
            case=synthesis.case,
            expected=f"1 to {count}, the tumors put in" if count else "none: no tumor was put in",
        )
    tumor, geometry = synthesis.inserted[number - 1], synthesis.geometry
    longest = max(n * spacing for n, spacing in zip(tumor.box.shape, geometry.spacing_mm, strict=True))
    margin = [round((_MARGIN_MM + longest) / spacing) for spacing in geometry.spacing_mm]
    box = tumor.box.grow(margin).clip(geometry.shape)
    after = synthesis.ct.crop(synthesis.stored_box(box)).reorient(synthesis.frame)
    mask = np.zeros(box.shape, bool)
    mask[tumor.box.seen_from(box).slices] = tumor.mask
    scores, plan = tumor.verdict.scores, tumor.plan
    caption = (
        f"{synthesis.case}: tumor {number}, {plan.organ}, {synthesis.phase} phase,"
        f" planned {plan.equivalent_diameter_mm:.0f} mm and {plan.contrast_hu:+.0f} HU,"
        f" drawn {scores['equivalent_diameter_mm']:.1f} mm and {scores['contrast_hu']:+.0f} HU"
    )
    before = Volume(_undone(synthesis, box, after.data), after.geometry)
    return TumorView(before, after, Volume(mask, geometry.crop(box)), caption)


def _undone(synthesis: Synthesis, box: Box, after: Array) -> Array:
    """The voxels of a box as they were before any tumor."""
    data = after.copy()
    for tumor in reversed(synthesis.inserted):
        shared = box.overlap(tumor.changed)
        if shared is not None:
            data[shared[0]] = tumor.before[shared[1]]
    return data
