"""A case as a folder of our own: the AbdomenAtlas layout and `case.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from synthoma import anatomy, disk, files
from synthoma.cases import Case, Lesion, find_lesions
from synthoma.datasets.folders import RECORD, SEGMENTATIONS
from synthoma.volume import Volume


def write_case(
    case: Case,
    folder: Path | str,
    structures: Iterable[str] | None = None,
    lesions: Sequence[Lesion] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes `ct.nii.gz`, `segmentations/NAME.nii.gz` (uint8) and, last, `case.json`; what was written.

    The same case gives the same bytes. Masks take the scan's affine. structures: those to write, all unless
    told; names as AbdomenAtlas spells them. lesions: found in the masks of tumors unless given. provenance:
    where the case comes from, plain data. Raises `GeometryError` for a mask on another grid.
    """
    folder = Path(folder)
    scan = case.read_image()
    files.write_volume(scan, folder / "ct.nii.gz")
    written, found = [folder / "ct.nii.gz"], []
    names = list(case.masks) if structures is None else list(structures)
    for name, mask in case.each_mask(names):
        with case.named():
            scan.require_same_grid(mask, name)
        path = folder / SEGMENTATIONS / f"{anatomy.ABDOMENATLAS_NAMES.get(name, name)}.nii.gz"
        files.write_volume(Volume(mask.data, scan.geometry), path)
        written.append(path)
        if lesions is None and anatomy.is_lesion(name):
            found += find_lesions(mask, name.removesuffix("_lesion"), case.id)
    record = {
        "id": case.id,
        "patient": case.patient,
        "attributes": dict(case.attributes),
        "provenance": {"dataset": case.dataset} if provenance is None else dict(provenance),
        "structures": names,
        "lesions": [dataclasses.asdict(lesion) for lesion in (found if lesions is None else lesions)],
    }
    disk.write_json(folder / RECORD, record)
    return report(case, folder, [*written, folder / RECORD], structures=names)


def report(case: Case, root: Path, written: Iterable[Path], **facts: Any) -> dict[str, Any]:
    """What was written for a case, as plain data: files (paths from `root`) with their digests, and facts."""
    listed = [{"path": path.relative_to(root).as_posix(), "digest": disk.digest(path)} for path in written]
    return {"id": case.id, "patient": case.patient, "files": listed, **facts}
