"""Small healthy patients for trials, and a planted detector that finds what is large and plain enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synthoma import files
from synthoma.cases import Case
from synthoma.datasets.writing import write_case
from synthoma.reading import open_dataset
from synthoma.trials.design import read_design
from synthoma.volume import Geometry, Volume

LIVER_HU, FAT_HU = 100.0, -90.0


def geometry(oblique: bool = False) -> Geometry:
    """A grid of 96 x 96 x 90 mm, anisotropic; its axes turned by 20 degrees if asked."""
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    if oblique:
        c, s = np.cos(0.35), np.sin(0.35)
        affine = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]) @ affine
    return Geometry((48, 48, 30), affine)


def host(number: int, small: bool = False) -> Case:
    """A ball of liver in fat; the odd ones on an oblique grid; a small one has no room for a large lesion."""
    grid = geometry(bool(number % 2))
    rng = np.random.default_rng(number)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    points = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    away = np.linalg.norm(points - grid.to_mm(np.array(grid.shape) / 2), axis=-1)
    liver = away < (17 if small else 38)
    hu = np.where(liver, LIVER_HU, FAT_HU) + rng.normal(0, 10, grid.shape)
    scan = Volume(np.asfortranarray(np.rint(hu).astype(np.int16)), grid)
    masks = {"liver": Volume(np.asfortranarray(liver), grid)}
    return Case(f"h{number}", scan, masks, patient=f"p{number}", attributes={"phase": "portal", "in_silico": True})


def write_hosts(root: Path, count: int = 3, small: tuple[int, ...] = ()) -> Path:
    """A data set of healthy hosts h0, h1, ..."""
    for number in range(count):
        write_case(host(number, number in small), root / f"h{number}")
    return root


def detect(trial: Path, out: Path, diameter_mm: float, contrast_hu: float = 0.0, false: bool = False) -> Path:
    """Masks of a detector that finds exactly the lesions of at least this diameter and contrast.

    false: whether it marks a corner of every scan as well.
    """
    design = read_design(trial)
    rows = {row["case"]: row for row in design.lesions}
    for case in open_dataset(trial):
        row = rows.get(case.id)
        found = row is not None and row["diameter_mm"] >= diameter_mm and abs(row["contrast_hu"]) >= contrast_hu
        mask = case.read_mask("liver_lesion") if found else None
        grid = case.read_image().geometry
        data = np.zeros(grid.shape, np.uint8) if mask is None else mask.data.astype(np.uint8)
        if false:
            data[:3, :3, :3] = 1
        files.write_volume(Volume(data, grid), out / case.id / "segmentations" / "liver_lesion.nii.gz")
    return out
