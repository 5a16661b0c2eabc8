"""CHAOS, its CT cases: `N/{DICOM_anon/*.dcm, Ground/*.png}`, the liver as one PNG a slice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthoma.cases import Case, Source
from synthoma.datasets.layouts.listing import Listing, case_id, list_folder, natural
from synthoma.errors import FileError, GeometryError, LayoutError
from synthoma.volume import Array, Volume


def holds_case(listing: Listing) -> bool:
    """Whether a folder is a CT case of CHAOS (its MRI cases have other folders)."""
    return "DICOM_anon" in listing.folders or "Ground" in listing.folders


def read(listing: Listing, dataset: str) -> Case:
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
