"""Crops of HU that a small network looks at: every lesion, and a ball of healthy tissue of the same scan beside it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from synthoma import anatomy, disk
from synthoma.errors import FileError
from synthoma.names import file_name
from synthoma.realism.samples import HEALTHY_MM, Sample
from synthoma.realism.shape import signed_distance_mm
from synthoma.realism.tissue import FEWEST, RING_MM
from synthoma.volume import Array, Geometry, Volume

SIZE, SPACING_MM = 32, 1.5  # 48 mm: of a larger lesion the middle is shown
HEALTHY_SIZE = 16  # 24 mm, which hold the ball
LIMIT_HU = 300.0  # from the organ's HU: bone and gas are no matter of tumors
CROPS = "crops"  # the folder of a run that holds them
Kind = Literal["lesion", "healthy"]


@dataclass(frozen=True)
class Crops:
    """The crops of a run, a file for each case of either side."""

    folder: Path

    def write(self, side: str, samples: Iterable[Sample]) -> None:
        """The crops of a case. side: `Side.id`. Samples without healthy tissue have the first kind alone."""
        arrays: dict[str, Array] = {}
        for sample in samples:
            base_hu = organ_hu(sample)
            arrays[_key(sample.lesion.organ, sample.lesion.index, "lesion")] = lesion_crop(sample, base_hu)
            if sample.healthy is not None:
                arrays[_key(sample.lesion.organ, sample.lesion.index, "healthy")] = healthy_crop(sample, base_hu)
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        with disk.atomic(self._file(side)) as part:
            part.write_bytes(content.getvalue())

    def read(self, side: str, rows: Iterable[dict[str, Any]], kind: Kind) -> list[Array | None]:
        """The crop of each lesion of a side, `real` or `synthetic`; None where it has none."""
        return [self._one(f"{side} {row['case']}", _key(row["organ"], row["index"], kind)) for row in rows]

    def _file(self, side: str) -> Path:
        return self.folder / f"{file_name(side)}.npz"

    def _one(self, side: str, key: str) -> Array | None:
        path = self._file(side)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return arrays[key] if key in arrays.files else None
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise FileError(
                f"{path} is missing or damaged", found=str(error), fix="choose another --out, or take the run away"
            ) from error


def lesion_crop(sample: Sample, base_hu: float) -> Array:
    """(32, 32, 32) int16: HU around the middle of a lesion less `base_hu`, axes RAS+, 1.5 mm."""
    return _cut(sample.ct, sample.lesion.center_mm, SIZE, base_hu)


def healthy_crop(sample: Sample, base_hu: float) -> Array:
    """(16, 16, 16) int16: the same of the ball of healthy tissue; 0 outside it. Raises `ValueError` without one."""
    if sample.healthy is None:
        raise ValueError("a sample without healthy tissue")
    hu = _cut(sample.healthy.ct, sample.healthy.center_mm, HEALTHY_SIZE, base_hu)
    steps = (np.indices(hu.shape) - (HEALTHY_SIZE - 1) / 2) * SPACING_MM
    return np.where((steps**2).sum(axis=0) <= HEALTHY_MM**2, hu, 0).astype(np.int16)


def organ_hu(sample: Sample) -> float:
    """Median HU of the organ 5 to 10 mm around a lesion, of all tissue there where the organ is not annotated.

    Of a hollow organ, what may be its wall.
    """
    distance = signed_distance_mm(sample.mask, sample.ct.geometry)
    around = (distance < -RING_MM[0]) & (distance > -RING_MM[1]) & ~sample.others
    of_organ = around & sample.organ if sample.organ is not None else around
    if anatomy.SITES[sample.lesion.organ].form == "wall":
        of_organ = of_organ & (sample.ct.data > anatomy.WALL_HU[0]) & (sample.ct.data < anatomy.WALL_HU[1])
    chosen = of_organ if of_organ.sum() >= FEWEST else around
    return float(np.median(sample.ct.data[chosen])) if chosen.any() else 0.0


def _key(organ: str, index: int, kind: Kind) -> str:
    return f"{organ}_{index}_{kind}"


def _cut(ct: Volume, center_mm: tuple[float, float, float], size: int, base_hu: float) -> Array:
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = np.asarray(center_mm) - SPACING_MM * (size - 1) / 2
    hu = np.asarray(ct.to(Geometry((size, size, size), affine)).data, np.float32) - base_hu
    shown: Array = np.clip(np.rint(hu), -LIMIT_HU, LIMIT_HU).astype(np.int16)
    return shown
