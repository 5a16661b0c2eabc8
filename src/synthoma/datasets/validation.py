"""Faults of data found before hours are spent on it: files, grids, HU, masks, anatomy, and scans that recur.

`check_case` looks at one case and `summarise` at all of them; neither stops at the first fault. A *fault* makes
results wrong or a program stop; a *warning* is something to look at, which many good cases have.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.datasets import fingerprint
from synthoma.datasets.catalog import Row, row_of
from synthoma.datasets.duplicates import Duplicate, find_duplicates, find_repeats
from synthoma.datasets.inspection import Inspection, Scan, Structure, inspect_case
from synthoma.engine.records import CaseRecord
from synthoma.errors import GeometryError, SynthomaError
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
    "affine_doubtful": Code("warning", "the header contradicts itself", "compare with the source"),
    "hu_not_finite": Code("fault", "NaN or infinite values", "replace them by -1024"),
    "hu_constant": Code("fault", "one value everywhere", "fetch the scan again"),
    "hu_normalized": Code("fault", "scaled to 0-1, 0-255 or unit variance", "go back to the scan in HU"),
    "hu_offset": Code("fault", "HU shifted by 1024", "apply the rescale intercept"),
    "hu_wrapped": Code("fault", "12 or 16 bits wrapped around: air is brighter than bone", "read it as signed"),
    "hu_no_tissue": Code("fault", "no fat or soft tissue at their HU", "check that it is a CT in HU"),
    "hu_clipped": Code("warning", "HU cut off at a window", "go back to the unclipped scan"),
    "mask_shape": Code("fault", "a mask with other voxels than the scan", "resample it to the scan's grid"),
    "mask_elsewhere": Code("fault", "a mask with another affine than the scan", "give it the scan's header"),
    "labels_unknown": Code("fault", "values in a label map that stand for nothing", "name them in dataset.json"),
    "labels_several": Code("warning", "several values in a mask of one structure", "check that it is no label map"),
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


def check_case(case: Case, recipe: ValidateRecipe | None = None) -> dict[str, Any]:
    """`{"faults": [...], "row": {...}}`, JSON data: all that is wrong with a case, and its catalog row.

    One read of the scan and of each mask. A file that cannot be read is a fault like any other.
    """
    recipe = recipe or ValidateRecipe()
    found = inspect_case(case)
    faults = [fault for fault in _faults(found, recipe) if fault.code not in recipe.ignore]
    return {
        "faults": [asdict(fault) for fault in faults],
        "row": row_of(found, (fault.code for fault in faults)),
    }


def _faults(found: Inspection, recipe: ValidateRecipe) -> Iterator[Fault]:
    for structure, error in found.failed.items():
        code = "affine_broken" if isinstance(error, GeometryError) else "unreadable"
        yield _fault(code, structure, str(error).removeprefix(f"{found.case.id}: "), fix=error.fix)
    if found.scan is not None:
        yield from _of_geometry(found.scan, recipe)
        yield from _of_hu(found.scan)
        for one in found.structures.values():
            yield from _of_grid(one, found.scan, recipe)
    yield from _of_labels(found)
    yield from _of_anatomy(found, recipe)


def _fault(code: str, structure: str = "", found: str = "", expected: str = "", fix: str | None = None) -> Fault:
    return Fault(code, CODES[code].severity, structure, found, expected, fix or CODES[code].fix)


def _of_geometry(scan: Scan, recipe: ValidateRecipe) -> Iterator[Fault]:
    spacing = scan.geometry.spacing_mm
    low, high = recipe.spacing_mm
    told = " x ".join(f"{one:.3g}" for one in spacing) + " mm"
    if not all(low <= one <= high for one in spacing):
        yield _fault("spacing_implausible", "", told, f"{low:g} to {high:g} mm")
    if all(one == 1.0 for one in spacing):
        yield _fault("spacing_lost", "", told)
    cosines = scan.geometry.affine[:3, :3] / np.asarray(spacing)
    shear = float(np.abs(cosines.T @ cosines - np.eye(3)).max())
    if shear > recipe.shear:
        angle = np.degrees(np.arccos(min(shear, 1.0)))
        yield _fault("affine_sheared", "", f"axes at {angle:.1f} degrees", "90 degrees")
    for doubt in scan.doubts:
        yield _fault("affine_doubtful", "", doubt)


def _of_hu(scan: Scan) -> Iterator[Fault]:
    """At most one way in which the values are not HU, and non-finite ones besides."""
    sample, low, high = scan.sample, scan.low, scan.high
    if not (np.isfinite(low) and np.isfinite(high)):
        yield _fault("hu_not_finite", "", "NaN or infinity", "finite HU")
        low, high = (float(sample.min()), float(sample.max())) if sample.size else (0.0, 0.0)
    span = f"{low:g} to {high:g}"
    if low == high:
        yield _fault("hu_constant", "", f"{low:g} everywhere", "air at -1000, tissue near 0")
    elif high - low <= 40 or (low >= 0 and high <= 255):
        yield _fault("hu_normalized", "", span, "air at -1000, bone above 300")
    elif min(_tissue(sample, 0), _share(sample, 2800, np.inf)) > 0.02 and _share(sample, -np.inf, -300) < 0.01:
        yield _fault("hu_wrapped", "", f"{_share(sample, 2800, np.inf):.0%} of the scan above 2800", "air at -1000")
    elif 0 <= low < 500 and _tissue(sample, 1024) > 0.02:
        yield _fault("hu_offset", "", f"{span}, tissue near 1024", "tissue near 0")
    elif _tissue(sample, 0) < 0.02:
        shifted = low < -1500 and _tissue(sample, -1024) > 0.02
        yield _fault(
            "hu_offset" if shifted else "hu_no_tissue",
            "",
            f"{span}, tissue near -1024" if shifted else f"{span}, {_tissue(sample, 0):.1%} at -150 to 150",
            "tissue near 0",
        )
    elif low > -900 and float(np.mean(sample == low)) > 0.02:
        yield _fault("hu_clipped", "", span, "air at -1000")


def _tissue(sample: Array, offset: float) -> float:
    """Share of fat and soft tissue, were HU shifted by this much."""
    return _share(sample, offset - 150, offset + 150)


def _share(sample: Array, low: float, high: float) -> float:
    return float(np.mean((sample > low) & (sample < high)))


def _of_grid(one: Structure, scan: Scan, recipe: ValidateRecipe) -> Iterator[Fault]:
    if one.geometry.shape != scan.geometry.shape:
        yield _fault("mask_shape", one.name, str(one.geometry), str(scan.geometry))
    elif not one.geometry.matches(scan.geometry, recipe.mask_tolerance_mm):
        apart = one.geometry.corner_distance_mm(scan.geometry)
        yield _fault(
            "mask_elsewhere", one.name, f"corners {apart:.2f} mm apart", f"at most {recipe.mask_tolerance_mm:g} mm"
        )


def _of_labels(found: Inspection) -> Iterator[Fault]:
    for path, values in found.unknown.items():
        yield _fault("labels_unknown", "", f"{_listed(values)} in {path}", "values of named structures only")
    for one in found.structures.values():
        if one.strange:
            yield _fault("labels_several", one.name, _listed(one.strange), "0 and one other value")


def _of_anatomy(found: Inspection, recipe: ValidateRecipe) -> Iterator[Fault]:
    organs = [
        one for one in found.structures.values() if not anatomy.is_lesion(one.name) and one.name != anatomy.IGNORE
    ]
    empty = [one.name for one in organs if one.box is None]
    if empty:
        yield _fault("organ_empty", ", ".join(empty), f"{len(empty)} of {len(organs)} masks", "some voxels")
    cut = {one.name: one.cut for one in organs if one.cut and not one.name.startswith(PASSING)}
    if cut:
        sides = ", ".join(f"{name} at {side}" for name, side in cut.items())
        yield _fault("organ_cut", ", ".join(cut), sides, "inside the volume")
    for one in organs:
        low, high = VOLUMES_ML.get(one.name, (0, np.inf))
        too_small = one.box is not None and not one.cut and one.volume_ml < low
        if too_small or one.volume_ml > high:
            yield _fault("organ_volume", one.name, f"{one.volume_ml:.4g} ml", f"{low:g} to {high:g} ml")
    for name, count in found.apart.items():
        if count:
            yield _fault("lesion_apart", name, f"{count} of {len(found.lesions[name])} lesions", "all inside the organ")
    yield from _of_order({one.name: one.center_mm for one in organs if one.box is not None}, recipe.swapped_mm)


def _of_order(centers_mm: Mapping[str, Array], tolerance_mm: float) -> Iterator[Fault]:
    for axis, pairs in ORDERS.items():
        side = "right of" if axis == 0 else "above"
        for first, second in pairs:
            if first in centers_mm and second in centers_mm:
                behind = float(centers_mm[second][axis] - centers_mm[first][axis])
                if behind > tolerance_mm:
                    told = f"{behind:.0f} mm the other way"
                    yield _fault("sides_swapped", f"{first}, {second}", told, f"{first} {side} {second}")


def _listed(values: Iterable[int], limit: int = 8) -> str:
    shown = [str(value) for value in values]
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")


@dataclass(frozen=True)
class ValidationReport:
    """What all cases have, together. rows: for the catalog. findings: case and fault, by case."""

    rows: tuple[Row, ...]
    findings: tuple[tuple[str, Fault], ...]
    duplicates: tuple[Duplicate, ...]
    cases: int

    @property
    def ok(self) -> bool:
        """No fault; warnings may be."""
        return all(fault.severity != "fault" for _, fault in self.findings)

    def counts(self) -> dict[str, int]:
        """Findings by code, in the order of `CODES`."""
        counted = Counter(fault.code for _, fault in self.findings)
        return {code: counted[code] for code in CODES if counted[code]}

    def table(self, severity: Severity | None = None) -> list[dict[str, str]]:
        """A row of text per finding: case, severity, code, structure, found, expected, fix."""
        return [
            {"case": case, "severity": fault.severity, **asdict(fault)}
            for case, fault in self.findings
            if severity in (None, fault.severity)
        ]

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        by_severity = Counter(fault.severity for _, fault in self.findings)
        return {
            "cases": self.cases,
            "faults": by_severity["fault"],
            "warnings": by_severity["warning"],
            "codes": self.counts(),
            "findings": self.table(),
            "duplicates": [pair._asdict() for pair in self.duplicates],
        }


def summarise(
    records: Iterable[CaseRecord],
    recipe: ValidateRecipe | None = None,
    layout_faults: Iterable[SynthomaError] = (),
    advance: Callable[[int], None] | None = None,
) -> ValidationReport:
    """The records of `check_case` over a data set, and what only shows when cases are compared.

    layout_faults: what the layout could not make a case of. A failed record is a fault of its case. advance: called
    with numbers of cases whose scans have been compared with all others.
    """
    recipe = recipe or ValidateRecipe()
    rows: dict[str, Row] = {}
    findings: list[tuple[str, Fault]] = []
    broken: set[str] = set()
    for error in layout_faults:
        broken.add(error.case or "")
        text = str(error).removeprefix(f"{error.case}: ")
        findings.append((error.case or "", _fault("layout", "", text, fix=error.fix)))
    for record in records:
        if record.status == "failed":
            broken.add(record.case)
            findings.append((record.case, _fault("crashed", "", record.error)))
            continue
        rows[record.case] = record.result["row"]
        findings += [(record.case, Fault(**fault)) for fault in record.result["faults"]]
    repeats, pairs = _duplicates(rows, recipe, advance)
    findings += list(_of_names(rows.values()))
    findings += [*_of_repeats(repeats, rows), *_of_duplicates(pairs, rows)]
    findings = [(case, fault) for case, fault in findings if fault.code not in recipe.ignore]
    codes: dict[str, set[str]] = {}
    if "repeated" not in recipe.ignore:
        codes = {case: {"repeated"} for first, others in repeats.items() for case in (first, *others)}
    for case, fault in findings:
        codes.setdefault(case, set()).add(fault.code)
    marked = tuple(rows[case] | {"faults": sorted(codes.get(case, ()))} for case in sorted(rows))
    order = {code: place for place, code in enumerate(CODES)}
    findings.sort(key=lambda entry: (entry[0], order[entry[1].code], entry[1].structure))
    return ValidationReport(marked, tuple(findings), tuple(pairs), len(rows.keys() | broken))


def _duplicates(
    rows: Mapping[str, Row], recipe: ValidateRecipe, advance: Callable[[int], None] | None
) -> tuple[dict[str, list[str]], list[Duplicate]]:
    """Scans that recur among the cases of a patient, and pairs of different patients (first cases) with one scan."""
    if {"duplicate", "repeated"} <= set(recipe.ignore):
        return {}, []
    known = {case: base64.b64decode(row["fingerprint"]) for case, row in rows.items() if row["fingerprint"]}
    repeats = find_repeats({case: rows[case]["patient"] for case in known}, known, recipe.duplicates)
    copies = {case for others in repeats.values() for case in others}
    firsts = [case for case in known if case not in copies]
    if advance is not None:
        advance(len(rows) - len(firsts))
    return repeats, find_duplicates(firsts, [known[case] for case in firsts], recipe.duplicates, advance)


def _of_names(rows: Iterable[Row]) -> Iterator[tuple[str, Fault]]:
    """Names that no command knows, all of them told once."""
    unknown = sorted({name for row in rows for name in row["structures"] if not anatomy.is_known(name)})
    if unknown:
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        tumors = ", ".join(organ.lesion for organ in anatomy.ORGANS.values())
        yield "", _fault("names_unknown", ", ".join(unknown[:8]) + more, f"{len(unknown)} names", f"organs, {tumors}")


def _of_repeats(repeats: Mapping[str, list[str]], rows: Mapping[str, Row]) -> Iterator[tuple[str, Fault]]:
    """All of them are told once: copies of a synthesis would fill pages."""
    if repeats:
        examples = [
            f"{', '.join([first, *others][:4])} of {rows[first]['patient']}" for first, others in repeats.items()
        ]
        cases = len(repeats) + sum(map(len, repeats.values()))
        more = f" and {len(examples) - 3} more" if len(examples) > 3 else ""
        found = f"{cases} cases share {len(repeats)} scans: {'; '.join(examples[:3])}{more}"
        yield "", _fault("repeated", "", found, "one case a scan, or copies on purpose")


def _of_duplicates(pairs: Iterable[Duplicate], rows: Mapping[str, Row]) -> Iterator[tuple[str, Fault]]:
    """Each pair is told at both cases."""
    for pair in pairs:
        for case, other in ((pair.first, pair.second), (pair.second, pair.first)):
            whose = f" of {rows[other]['patient']}" if rows[other]["patient"] != other else ""
            yield (
                case,
                _fault("duplicate", "", f"the scan of {other}{whose} (score {pair.score:.2f})", "a scan of its own"),
            )
