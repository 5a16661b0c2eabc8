"""3D-IRCADb: `3Dircadb1.N/{PATIENT_DICOM/, MASKS_DICOM/{liver,livertumor1,...}/}`, DICOM scans and DICOM masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthoma import anatomy, files
from synthoma.cases import Case, Source
from synthoma.datasets.layouts.listing import Listing, case_id
from synthoma.errors import LayoutError
from synthoma.volume import Volume

# 3D-IRCADb's words -> ours; numbers at their end only count (`livertumor1`, `livertumor2`).
IRCADB = {
    "livertumor": "liver_lesion",
    "livertumors": "liver_lesion",
    "livercyst": "liver_cyst",
    "livercysts": "liver_cyst",
    "leftkidney": "kidney_left",
    "rightkidney": "kidney_right",
    "leftlung": "lung_left",
    "rightlung": "lung_right",
    "leftsurrenalgland": "adrenal_gland_left",
    "rightsurrenalgland": "adrenal_gland_right",
    "venacava": "postcava",
    "smallintestin": "intestine",
}


def holds_case(listing: Listing) -> bool:
    """Whether a folder is a 3D-IRCADb patient, unpacked or not."""
    return any(
        name.removesuffix(".zip") in ("PATIENT_DICOM", "MASKS_DICOM") for name in (*listing.folders, *listing.files)
    )


def read(listing: Listing, dataset: str) -> Case:
    """A DICOM scan, and for each structure the union of its DICOM folders (`livertumor1`, `livertumor2`, ...).

    A patient without a folder of tumors counts as not annotated, though most of them have none.
    """
    name = case_id(listing.path.name)
    scan = _unpacked(listing, "PATIENT_DICOM")
    if scan.empty:
        packed = [file for file in listing.files if file.endswith(".zip")]
        raise LayoutError(
            "the case has no scan",
            case=name,
            found=listing.summary(),
            expected="PATIENT_DICOM/",
            fix=f"unpack {', '.join(packed)}" if packed else None,
        )
    shelf = _unpacked(listing, "MASKS_DICOM")
    if "MASKS_DICOM.zip" in listing.files and shelf.empty:
        raise LayoutError("the masks are still packed", case=name, found="MASKS_DICOM.zip", fix="unpack it")
    parts: dict[str, list[Path]] = {}
    for folder in shelf.folders:
        word = folder.lower().rstrip("0123456789_- ")
        parts.setdefault(IRCADB.get(word, anatomy.canonical_name(word)), []).append(shelf.path / folder)
    masks: dict[str, Source] = {structure: DicomMasks(tuple(paths)) for structure, paths in parts.items()}
    return Case(name, scan.path, masks, dataset=dataset)


def _unpacked(listing: Listing, folder: str) -> Listing:
    """A folder of the archive, or the one of the same name that unpacking has put inside it."""
    outer = listing.within(folder)
    return outer.within(folder) if folder in outer.folders else outer


@dataclass(frozen=True)
class DicomMasks:
    """The union of several masks, each a folder of DICOM images with 0 outside the structure."""

    folders: tuple[Path, ...]

    def __call__(self) -> Volume:
        masks = [files.read_labels(folder) for folder in self.folders]
        for mask in masks[1:]:
            masks[0].require_same_grid(mask)
        return Volume(np.logical_or.reduce([mask.data != 0 for mask in masks]), masks[0].geometry)
