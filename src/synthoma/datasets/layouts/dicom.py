"""Folders of DICOM: one CT series a case, and the SEG and RTSTRUCT objects beside it as its masks.

The files of a case lie in its folder, or up to three folders further down (PATIENT/STUDY/SERIES, as archives export).
Headers are read when a case is asked for its masks, not when the data set is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from synthoma import files
from synthoma.cases import Case, Source
from synthoma.datasets.labels import outline_sources
from synthoma.datasets.layouts.listing import Listing, case_id, list_folder
from synthoma.inputs import Reads
from synthoma.volume import Volume

DEEPEST = 3  # folders below a case's
_LOOKED_INTO = 20  # folders of each, to tell


@dataclass(frozen=True, eq=False)
class OutlinedMasks(Mapping[str, Source]):
    """The masks that SEG and RTSTRUCT objects hold of a scan; read when first asked for.

    scan: the folder of a DICOM series, or an image file on whose grid they must lie. objects: their folder.
    """

    scan: Path
    objects: Path
    dataset: str = ""

    @cached_property
    def _sources(self) -> dict[str, Source]:
        outlines, grid = files.list_outlines(self.scan, self.objects)
        return outline_sources(outlines, grid, self.dataset)

    def reads(self) -> Reads:
        """What the masks are made from: the objects; those beside the scan are among its files."""
        return Reads(None, () if self.objects == self.scan else (self.objects,))

    def __getitem__(self, structure: str) -> Source:
        return self._sources[structure]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


@dataclass(frozen=True)
class SeriesFolder:
    """The scan of masks that are to be written as a SEG: a folder, of whose CT series their grid tells the one."""

    folder: Path

    def __call__(self) -> Volume:
        """The scan, if the folder holds one CT series only."""
        return files.read_image(self.folder)


def holds_case(listing: Listing) -> bool:
    """Whether DICOM files lie in a folder or not far below it."""
    return _holds(listing, DEEPEST)


def _holds(listing: Listing, deeper: int) -> bool:
    if listing.has_dicom():
        return True
    below = listing.folders[:_LOOKED_INTO] if deeper else ()
    return any(_holds(list_folder(listing.path / name), deeper - 1) for name in below)


def read(listing: Listing, dataset: str) -> Case:
    """The case of a folder; its series is found when it is read."""
    return Case(
        case_id(listing.path.name), listing.path, OutlinedMasks(listing.path, listing.path, dataset), dataset=dataset
    )
