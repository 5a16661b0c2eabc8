"""Faults of data found before hours are spent on it: files, grids, HU, masks, anatomy, and scans that recur.

`check_case` looks at one case and `findings.summarise` at all of them; neither stops at the first fault. A *fault*
makes results wrong or a program stop; a *warning* is something to look at, which many good cases have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from synthoma import anatomy, hounsfield
from synthoma.cases import Case
from synthoma.datasets import fingerprint
from synthoma.datasets.catalog import row_of
from synthoma.datasets.inspection import Inspection, Scan, Structure, inspect_case
from synthoma.datasets.layouts.joining import SEGMENT_FIRST
from synthoma.errors import GeometryError, without_folders
from synthoma.recipe import Recipe
from synthoma.volume import Array

Severity = Literal["fault", "warning"]


class Code(NamedTuple):
    """What a code means, and the way out."""

    severity: Severity
    meaning: str
    fix: str


CODES = {
    "unreadable": Code("fault", "a file cannot be read", "copy or convert it again"),
    "affine_broken": Code("fault", "the header's affine cannot be one", "repair the header"),
    "layout": Code("fault", "the folder breaks its own convention", "see the message"),
    "crashed": Code("fault", "the check itself failed", "report it with the traceback in the records"),
    "spacing_implausible": Code("fault", "voxels of a size no CT has", "repair the header"),
    "spacing_lost": Code("warning", "1 mm along every axis, as of a lost header", "compare with the source"),
    "affine_sheared": Code("fault", "axes that are not at right angles (gantry tilt)", "resample to an upright grid"),
    "affine_skewed": Code(
        "warning", "axes so far from right angles that SimpleITK, and so nnU-Net, refuses it", "write it with convert"
    ),
    "affine_doubtful": Code("warning", "the header contradicts itself", "compare with the source"),
    "hu_not_finite": Code("fault", "NaN or infinite values", "replace them by -1024"),
    "hu_constant": Code("fault", "one value everywhere", "fetch the scan again"),
    "hu_normalized": Code("fault", "scaled to 0-1, 0-255 or unit variance", "go back to the scan in HU"),
    "hu_offset": Code("fault", "HU shifted by 1024", "apply the rescale intercept"),
    "hu_wrapped": Code("fault", "12 or 16 bits wrapped around: air is brighter than bone", "read it as signed"),
    "hu_no_tissue": Code("fault", "no fat or soft tissue at their HU", "check that it is a CT in HU"),
    "hu_clipped": Code("fault", "HU cut off at the lower end of a window", "go back to the unclipped scan"),
    "hu_saturated": Code("fault", "HU cut off at the upper end of a window", "go back to the unclipped scan"),
    "mask_shape": Code("fault", "a mask with other voxels than the scan", "resample it to the scan's grid"),
    "mask_elsewhere": Code(
        "fault",
        "a mask that lies elsewhere than the scan",
        "see synthoma convert DIR --mend show ...",
    ),
    "labels_unknown": Code("fault", "values in a label map that stand for nothing", "name them in dataset.json"),
    "labels_several": Code("warning", "several values in a mask of one structure", "check that it is no label map"),
    "no_masks": Code("warning", "no case has a mask (told once)", SEGMENT_FIRST),
    "names_unknown": Code("warning", "structures that no command knows (told once)", "rename those that matter"),
    "organ_empty": Code("warning", "annotated, but without a voxel", "remove the file if it was not annotated"),
    "organ_cut": Code("warning", "reaches the end of the volume", "leave the case out where whole organs matter"),
    "organ_volume": Code("warning", "a volume that this organ rarely has", "look at the mask"),
    "lesion_apart": Code("warning", "lesions with no organ near", "look at the masks"),
    "sides_swapped": Code("warning", "organs on the wrong side of each other", "check for a mirrored scan"),
    "duplicate": Code("fault", "one scan under two patients", "keep both on one side of any split"),
    "repeated": Code(
        "warning",
        "cases of one patient share a scan, as copies of a synthesis do",
        "keep them on one side of any split",
    ),
}

# What `hounsfield` calls the ways in which values are not HU -> the code.
HU_CODES = {
    "constant": "hu_constant",
    "scaled": "hu_normalized",
    "wrapped": "hu_wrapped",
    "shifted": "hu_offset",
    "no_tissue": "hu_no_tissue",
    "windowed": "hu_clipped",
    "saturated": "hu_saturated",
}

# Assumed, not measured: wide enough for disease and small adults, to catch a wrong label or a wrong spacing.
# Stomach, bowel and vessels vary too much.
VOLUMES_ML = {
    "liver": (500, 5000),
    "spleen": (20, 2500),
    "kidney": (80, 1500),
    "kidney_left": (30, 900),
    "kidney_right": (30, 900),
    "pancreas": (15, 300),
    "gall_bladder": (1, 400),
    "bladder": (5, 2000),
    "adrenal_gland_left": (0.5, 60),
    "adrenal_gland_right": (0.5, 60),
    "prostate": (5, 400),
    "uterus": (10, 2000),
    "lung_left": (200, 6000),
    "lung_right": (200, 6000),
}

ITK_SHEAR = 1e-4  # cosine between two axes from which ITK says "only supports orthonormal direction cosines"

# What names begin with that every scan of the abdomen cuts.
PASSING = ("aorta", "postcava", "esophagus", "lung", "femur")

# World axis -> pairs whose first lies further along it (R, then S).
ORDERS = {
    0: (
        ("liver", "spleen"),
        ("liver", "stomach"),
        ("kidney_right", "kidney_left"),
        ("adrenal_gland_right", "adrenal_gland_left"),
        ("lung_right", "lung_left"),
        ("femur_right", "femur_left"),
    ),
    2: (("liver", "bladder"), ("spleen", "bladder"), ("liver", "prostate"), ("lung_right", "kidney_right")),
}


class ValidateRecipe(Recipe):
    """What counts as a fault. ignore: codes left out. duplicates: the score from which two scans are one."""

    spacing_mm: tuple[float, float] = (0.1, 20.0)
    mask_tolerance_mm: float = Field(0.1, gt=0)
    shear: float = Field(0.005, gt=0)  # cosine between two axes
    swapped_mm: float = Field(20.0, ge=0)
    duplicates: float = Field(fingerprint.THRESHOLD, gt=0, le=1)
    ignore: tuple[str, ...] = ()

    @field_validator("ignore")
    @classmethod
    def _known(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [code for code in codes if code not in CODES]
        if unknown:
            raise ValueError(f"unknown code {unknown[0]}; known: {', '.join(CODES)}")
        return codes


@dataclass(frozen=True)
class Fault:
    """One thing found in one case. structure: empty for the scan itself; several are joined by commas."""

    code: str
    severity: Severity
    structure: str
    found: str
    expected: str
    fix: str


def check_case(
    case: Case, recipe: ValidateRecipe | None = None, base: Path | None = None, root: Path | None = None
) -> dict[str, Any]:
    """`{"faults": [...], "row": {...}}`, JSON data: all that is wrong with a case, and its catalog row.

    base: the folder that the row's paths are noted from; root: the data set's, from which faults name files. One
    read of the scan and of each mask. A file that cannot be read is a fault like any other.
    """
    recipe = recipe or ValidateRecipe()
    found = inspect_case(case)
    places = [] if root is None else [root]
    faults = [
        replace(one, found=without_folders(one.found, places))
        for one in _faults(found, recipe)
        if one.code not in recipe.ignore
    ]
    return {
        "faults": [asdict(one) for one in faults],
        "row": row_of(found, (one.code for one in faults), base),
    }


def _faults(found: Inspection, recipe: ValidateRecipe) -> Iterator[Fault]:
    for structure, error in found.failed.items():
        code = "affine_broken" if isinstance(error, GeometryError) else "unreadable"
        yield fault(code, structure, str(error).removeprefix(f"{found.case.id}: "), fix=error.fix)
    if found.scan is not None:
        yield from _of_geometry(found.scan, recipe)
        yield from _of_hu(found.scan)
        for one in found.structures.values():
            yield from _of_grid(one, found.scan, recipe)
    yield from _of_labels(found)
    yield from _of_anatomy(found, recipe)


def fault(code: str, structure: str = "", found: str = "", expected: str = "", fix: str | None = None) -> Fault:
    """A finding of a code of `CODES`, with its severity and, unless another is given, its way out."""
    return Fault(code, CODES[code].severity, structure, found, expected, fix or CODES[code].fix)


def _of_geometry(scan: Scan, recipe: ValidateRecipe) -> Iterator[Fault]:
    spacing = scan.geometry.spacing_mm
    low, high = recipe.spacing_mm
    told = " x ".join(f"{one:.3g}" for one in spacing) + " mm"
    if not all(low <= one <= high for one in spacing):
        yield fault("spacing_implausible", "", told, f"{low:g} to {high:g} mm")
    if all(one == 1.0 for one in spacing):
        yield fault("spacing_lost", "", told)
    cosines = scan.geometry.affine[:3, :3] / np.asarray(spacing)
    shear = float(np.abs(cosines.T @ cosines - np.eye(3)).max())
    if shear > recipe.shear:
        angle = np.degrees(np.arccos(min(shear, 1.0)))
        yield fault("affine_sheared", "", f"axes at {angle:.1f} degrees", "90 degrees")
    elif shear > ITK_SHEAR:
        angle = np.degrees(np.arccos(shear))
        yield fault("affine_skewed", "", f"axes at {angle:.2f} degrees", "90 degrees to 0.005")
    for doubt in scan.doubts:
        if not doubt.startswith("axes off 90 degrees"):  # the same, told above
            yield fault("affine_doubtful", "", doubt)


def _of_hu(scan: Scan) -> Iterator[Fault]:
    """The most telling way in which the values are not HU, and non-finite ones besides."""
    if not (np.isfinite(scan.low) and np.isfinite(scan.high)):
        yield fault("hu_not_finite", "", "NaN or infinity", "finite HU")
    reason = hounsfield.impossible_hu(scan.sample)
    if reason is not None:
        yield fault(HU_CODES[reason.kind], "", reason.told, reason.expected)


def _of_grid(one: Structure, scan: Scan, recipe: ValidateRecipe) -> Iterator[Fault]:
    if one.geometry.shape != scan.geometry.shape:
        yield fault("mask_shape", one.name, str(one.geometry), str(scan.geometry))
    elif not one.geometry.matches(scan.geometry, recipe.mask_tolerance_mm):
        apart = one.geometry.corner_distance_mm(scan.geometry)
        yield fault(
            "mask_elsewhere", one.name, f"corners {apart:.2f} mm apart", f"at most {recipe.mask_tolerance_mm:g} mm"
        )


def _of_labels(found: Inspection) -> Iterator[Fault]:
    for path, values in found.unknown.items():
        yield fault("labels_unknown", "", f"{_listed(values)} in {Path(path).name}", "values of named structures only")
    for one in found.structures.values():
        if one.strange:
            yield fault("labels_several", one.name, _listed(one.strange), "0 and one other value")


def _of_anatomy(found: Inspection, recipe: ValidateRecipe) -> Iterator[Fault]:
    organs = [
        one for one in found.structures.values() if not anatomy.is_lesion(one.name) and one.name != anatomy.IGNORE
    ]
    empty = [one.name for one in organs if one.box is None]
    if empty:
        yield fault("organ_empty", ", ".join(empty), f"{len(empty)} of {len(organs)} masks", "some voxels")
    cut = {one.name: one.cut for one in organs if one.cut and not one.name.startswith(PASSING)}
    if cut:
        sides = ", ".join(f"{name} at {side}" for name, side in cut.items())
        yield fault("organ_cut", ", ".join(cut), sides, "inside the volume")
    for one in organs:
        low, high = VOLUMES_ML.get(one.name, (0, np.inf))
        too_small = one.box is not None and not one.cut and one.volume_ml < low
        if too_small or one.volume_ml > high:
            yield fault("organ_volume", one.name, f"{one.volume_ml:.4g} ml", f"{low:g} to {high:g} ml")
    for name, count in found.apart.items():
        if count:
            yield fault("lesion_apart", name, f"{count} of {len(found.lesions[name])} lesions", "all inside the organ")
    yield from _of_order({one.name: one.center_mm for one in organs if one.box is not None}, recipe.swapped_mm)


def _of_order(centers_mm: Mapping[str, Array], tolerance_mm: float) -> Iterator[Fault]:
    for axis, pairs in ORDERS.items():
        side = "right of" if axis == 0 else "above"
        for first, second in pairs:
            if first in centers_mm and second in centers_mm:
                behind = float(centers_mm[second][axis] - centers_mm[first][axis])
                if behind > tolerance_mm:
                    told = f"{behind:.0f} mm the other way"
                    yield fault("sides_swapped", f"{first}, {second}", told, f"{first} {side} {second}")


def _listed(values: Iterable[int], limit: int = 8) -> str:
    shown = [str(value) for value in values]
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")
