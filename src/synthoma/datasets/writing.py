"""A case as a folder of our own: the AbdomenAtlas layout and `case.json`."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from synthoma import anatomy, disk, files
from synthoma.bounded import Bounded
from synthoma.cases import Case, Lesion, Source, find_lesions
from synthoma.datasets.layouts.folders import RECORD, SEGMENTATIONS
from synthoma.formats import nifti
from synthoma.names import file_name
from synthoma.volume import Geometry

SCAN = "ct.nii.gz"


def write_case(
    case: Case,
    folder: Path | str,
    structures: Iterable[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    lesions: Sequence[Lesion] | None = None,
) -> dict[str, Any]:
    """Writes `ct.nii.gz`, `segmentations/NAME.nii.gz` (uint8) and, last, `case.json`; what was written.

    The same case gives the same bytes. Masks take the scan's affine. structures: those to write, all unless
    told; names as AbdomenAtlas spells them. lesions: found in the masks of tumors unless given. provenance:
    where the case comes from, plain data. Raises `GeometryError` for a mask on another grid.
    """
    names = list(case.masks) if structures is None else list(structures)
    written = write_files(case, folder, names, provenance, lesions)
    return report(case, Path(folder), written, structures=names)


def write_files(
    case: Case,
    folder: Path | str,
    structures: Sequence[str],
    provenance: Mapping[str, Any] | None = None,
    lesions: Sequence[Lesion] | None = None,
    copy: bool = False,
) -> list[Path]:
    """The same without a report: the files written.

    copy: mask files that hold no more than we write (uint8, .nii.gz, the scan's affine, no words) are copied unread,
    unless lesions are to be found in them.
    """
    folder, found = Path(folder), []
    scan = case.read_image()
    files.write_volume(scan, folder / SCAN)
    paths = {
        name: folder / SEGMENTATIONS / f"{file_name(anatomy.ABDOMENATLAS_NAMES.get(name, name))}.nii.gz"
        for name in structures
    }
    sought = [name for name in structures if lesions is None and anatomy.is_lesion(name)]
    ready = {name: _ready(case.masks.get(name), scan.geometry) for name in structures if copy and name not in sought}
    for name, file in ready.items():
        if file is not None:
            with disk.atomic(paths[name]) as part:
                shutil.copyfile(file, part)
    for name, mask in case.each_bounded(name for name in structures if ready.get(name) is None):
        with case.named():
            scan.geometry.require_same(mask.grid, name)
        files.write_mask(Bounded(scan.geometry, mask.box, mask.data), paths[name])
        if name in sought:
            found += find_lesions(mask.whole, name.removesuffix("_lesion"), case.id)
    record = {
        "id": case.id,
        "patient": case.patient,
        "attributes": dict(case.attributes),
        "provenance": {"dataset": case.dataset} if provenance is None else dict(provenance),
        "structures": list(structures),
        "lesions": [dataclasses.asdict(lesion) for lesion in (found if lesions is None else lesions)],
    }
    disk.write_json(folder / RECORD, record)
    return [folder / SCAN, *paths.values(), folder / RECORD]


def _ready(source: Source | None, geometry: Geometry) -> Path | None:
    """The mask's file if a copy of it is what we would write."""
    if not isinstance(source, Path) or not source.name.endswith(".nii.gz"):
        return None
    return source if nifti.is_plain_mask(source, geometry) else None


def report(case: Case, root: Path, written: Iterable[Path], **facts: Any) -> dict[str, Any]:
    """What was written for a case, as plain data: files (paths from `root`) with their digests, and facts."""
    listed = [{"path": path.relative_to(root).as_posix(), "digest": disk.digest(path)} for path in written]
    return {"id": case.id, "patient": case.patient, "files": listed, **facts}
