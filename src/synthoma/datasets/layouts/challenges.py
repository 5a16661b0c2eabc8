"""The folders of four public challenges: KiTS, LiTS, 3D-IRCADb and CHAOS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthoma import anatomy, files
from synthoma.cases import Case, Source
from synthoma.datasets.labels import PresentLabels, label_sources, with_tumors
from synthoma.datasets.layouts.listing import Listing, case_id, list_folder, natural
from synthoma.errors import FileError, GeometryError, LayoutError, SynthomaError
from synthoma.volume import Array, Volume

KITS = {"kidney": (1,), "kidney_lesion": (2,), "kidney_cyst": (3,)}
LITS = {"liver": (1,), "liver_lesion": (2,)}

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


def holds_kits(listing: Listing) -> bool:
    """Whether a folder is a KiTS case, whole or broken."""
    stems = listing.images().values()
    return "imaging" in stems or any(stem in ("segmentation", "aggregated_MAJ_seg") for stem in stems)


def read_kits(listing: Listing, dataset: str) -> Case:
    """1 kidney (both, with tumors and cysts), 2 tumor, 3 cyst; a case without label map has no masks.

    KiTS21 and 23, told by their `segmentations/` or `instances/`, annotate cysts; elsewhere a cyst counts as
    annotated only where there is one, for which the label map is read when the masks are first asked for.
    """
    name = case_id(listing.path.name)
    by_stem = {stem: listing.path / file for file, stem in listing.images().items()}
    if "imaging" not in by_stem:
        raise LayoutError(
            "the case has no scan",
            case=name,
            found=listing.summary(),
            expected="imaging.nii.gz",
            fix="KiTS hands out scans apart from its masks; run its own download script",
        )
    path = by_stem.get("segmentation") or by_stem.get("aggregated_MAJ_seg")
    if path is None:
        return Case(name, by_stem["imaging"], {}, dataset=dataset)
    if {"segmentations", "instances"}.intersection(listing.folders):
        return Case(name, by_stem["imaging"], label_sources(path, with_tumors(KITS)), dataset=dataset)
    masks = PresentLabels(path, KITS, certain=frozenset({"kidney", "kidney_lesion"}))
    return Case(name, by_stem["imaging"], masks, dataset=dataset)


def lits_fits(root: Listing, samples: tuple[Listing, ...]) -> bool:
    """Files named `volume-N`."""
    return any(re.fullmatch(r"(test-)?volume-\d+", stem) for stem in root.images().values())


def read_lits(root: Listing) -> Iterator[Case | SynthomaError]:
    """Pairs `volume-N`, `segmentation-N`; `test-volume-N` and volumes without a twin have no masks."""
    by_stem: dict[str, list[str]] = {}
    for file, stem in root.images().items():
        by_stem.setdefault(stem, []).append(file)
    values = with_tumors(LITS)
    for stem, names in by_stem.items():
        kind, _, number = stem.rpartition("-")
        if len(names) > 1:
            yield LayoutError("one file twice", case=case_id(stem), found=" and ".join(names), expected="one")
        elif kind == "segmentation" and f"volume-{number}" not in by_stem:
            yield LayoutError("a label map without a scan", case=f"volume-{number}", found=names[0])
        elif kind in ("volume", "test-volume"):
            twin = by_stem.get(f"segmentation-{number}", []) if kind == "volume" else []
            masks = label_sources(root.path / twin[0], values) if twin else {}
            split = {"split": "test"} if kind == "test-volume" else {}
            yield Case(case_id(stem), root.path / names[0], masks, dataset=root.path.name, attributes=split)


def holds_ircadb(listing: Listing) -> bool:
    """Whether a folder is a 3D-IRCADb patient, unpacked or not."""
    return any(
        name.removesuffix(".zip") in ("PATIENT_DICOM", "MASKS_DICOM") for name in (*listing.folders, *listing.files)
    )


def read_ircadb(listing: Listing, dataset: str) -> Case:
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


def holds_chaos(listing: Listing) -> bool:
    """Whether a folder is a CT case of CHAOS (its MRI cases have other folders)."""
    return "DICOM_anon" in listing.folders or "Ground" in listing.folders


def read_chaos(listing: Listing, dataset: str) -> Case:
    """A DICOM scan and the liver as one PNG a slice; without `Ground/` (the test set) there are no masks."""
    name = case_id(listing.path.name)
    if "DICOM_anon" not in listing.folders:
        raise LayoutError("the case has no scan", case=name, found=listing.summary(), expected="DICOM_anon/")
    scan = listing.path / "DICOM_anon"
    masks: dict[str, Source] = {"liver": PngMask(scan, listing.path / "Ground")} if "Ground" in listing.folders else {}
    return Case(name, scan, masks, dataset=dataset)


@dataclass(frozen=True)
class PngMask:
    """A mask on the grid of a DICOM series, drawn as one PNG for each of its files.

    PNG i belongs to DICOM file i, both in order of file name; where that slice lies is told by its header.
    """

    scan: Path
    drawings: Path

    def __call__(self) -> Volume:
        from synthoma.formats import dicom

        slices, geometry = dicom.find_stack(self.scan)
        by_name = sorted(range(len(slices)), key=lambda k: natural(slices[k].path.name))
        names = [name for name in list_folder(self.drawings).files if name.lower().endswith(".png")]
        if len(names) != len(slices):
            raise LayoutError(
                f"{self.drawings} does not fit the scan",
                found=f"{len(names)} PNG",
                expected=f"{len(slices)}, one a slice",
            )
        mask = np.zeros(geometry.shape, bool, order="F")
        for name, k in zip(names, by_name, strict=True):
            mask[:, :, k] = _drawing(self.drawings / name, geometry.shape[:2])
        return Volume(mask, geometry)


def _drawing(path: Path, shape: tuple[int, int]) -> Array:
    """One PNG (columns, rows): True where it is not black."""
    import cv2

    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise FileError(f"{path} is no readable PNG", fix="copy or download it again")
    if pixels.T.shape != shape:
        raise GeometryError(f"{path} is not the size of its slice", found=pixels.T.shape, expected=shape)
    return np.asarray(pixels.T != 0)
