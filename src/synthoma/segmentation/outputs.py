"""Segmenting as files: what a path holds to be segmented, and what is written of each case."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from synthoma import anatomy, disk, files
from synthoma.cases import Case
from synthoma.datasets.dicom_writing import SEGMENTATION, origin_of_model
from synthoma.datasets.layouts import opening
from synthoma.datasets.layouts.folders import RECORD, SEGMENTATIONS, holds_case
from synthoma.datasets.layouts.images import scan_ids
from synthoma.datasets.layouts.listing import case_id, image_stem, list_folder
from synthoma.datasets.layouts.opening import Dataset
from synthoma.datasets.writing import SCAN
from synthoma.errors import CaseError, LayoutError, RunError
from synthoma.formats.dicom_seg import require_referable, write_segmentation
from synthoma.learning.loop import choose_device
from synthoma.learning.models import BOX, Model, find_model, model_at
from synthoma.names import file_name
from synthoma.segmentation.infer import SegmentRecipe, each_structure, estimate_memory, predict
from synthoma.segmentation.memory import gigabytes
from synthoma.segmentation.structures import Tumors
from synthoma.volume import Geometry, Volume

SCORES, PROBABILITIES = "scores", "probabilities"


def find_inputs(path: Path | str, open_dataset: Callable[[Path], Dataset] = opening.open_dataset) -> Dataset:
    """The cases at a path: a data set in any layout, a case's folder, a DICOM series' folder, or one image file.

    open_dataset: how folders are read. The id of a lone image is its name, that of `ct.nii.gz` in a case's folder
    the folder's. Raises `LayoutError` or `FileError` for what is neither.
    """
    path = Path(path).absolute()
    if not path.is_file():
        return open_dataset(path)
    if not files.is_image_file(path):
        raise LayoutError(
            f"{path} is no image",
            expected=", ".join(files.SUFFIXES),
            fix="of a DICOM series give the folder",
        )
    if holds_case(list_folder(path.parent)):
        case = opening.read_case(path)
    else:
        name = scan_ids(list_folder(path.parent)).get(path.name, image_stem(path.name))
        case = Case(case_id(name), path, dataset=path.parent.name)
    return Dataset(path, "image", case.dataset, (case,))


def segment_case(
    case: Case,
    model: Model | Path | str,
    recipe: SegmentRecipe,
    device: str,
    out: Path,
    probabilities: bool = False,
    dicom_seg: bool = False,
) -> dict[str, Any]:
    """Writes the masks of a case, scores of its tumors and, last, `case.json`; what was found, as JSON data.

    model: a file, a run folder or a name in the box is loaded once a process. `OUT/CASE/segmentations/NAME.nii.gz`
    are masks (uint8), `OUT/CASE/scores/NAME.nii.gz` fractions that reach 0.5 exactly in the tumors' masks;
    probabilities: `OUT/CASE/probabilities/NAME.nii.gz` as well, for every class, as the network gave them. dicom_seg:
    `OUT/CASE/segmentation.dcm` as well, of a scan that is a DICOM series. One structure is held in memory at a time.
    """
    known = model if isinstance(model, Model) else model_at(model, choose_device(device))
    asked, recipe = recipe, recipe.at_point(known.spec)
    folder = Path(out) / file_name(case.id)
    if isinstance(case.image, Path) and case.image.resolve().is_relative_to(folder.resolve()):
        raise CaseError("the result would lie in the data it is made from", case=case.id, fix="choose another --out")
    disk.remove_folder(folder)  # of an earlier start: if the case fails now, old masks would pass for new ones
    with case.named():
        _refuse(known, case, recipe, device, dicom_seg)
        ct = case.read_image()
        if recipe.with_scan:
            files.write_volume(ct, folder / SCAN)
        prediction = predict(known, ct, recipe, device)
        scan = ct.geometry
        del ct
        volumes: dict[str, float] = {}
        lesions: list[dict[str, Any]] = []
        cysts: list[dict[str, Any]] = []
        cuts: dict[str, dict[str, float]] = {}
        notes = files.affine_doubts(case.image) if isinstance(case.image, Path) else []
        for name, structure in each_structure(prediction, scan, recipe, case.read_organ, case.id):
            mask = structure
            if isinstance(structure, Tumors):
                mask, cuts[name] = structure.mask, dataclasses.asdict(recipe.cut_of(name))
                files.write_fractions(structure.scores, folder / SCORES / f"{name}.nii.gz")
                lesions += [dataclasses.asdict(one.lesion) | {"score": one.score} for one in structure.lesions]
                cysts += [dataclasses.asdict(one.lesion) | {"hu": round(one.hu, 1)} for one in structure.cysts]
                notes += _left_out(name, structure, recipe)
            assert isinstance(mask, Volume)
            files.write_volume(mask, folder / SEGMENTATIONS / _file(name))
            volumes[name] = int(mask.data.sum()) * scan.voxel_mm3 / 1000
        if probabilities:
            for name in prediction.classes:
                levels = Volume(prediction.restore(name, scan), scan)
                files.write_fractions(levels, folder / PROBABILITIES / f"{name}.nii.gz")
        if dicom_seg:
            written = ((name, files.read_labels(folder / SEGMENTATIONS / _file(name))) for name in volumes)
            path = folder / SEGMENTATION
            write_segmentation(written, case.image, path, origin_of_model(_told(model)))  # type: ignore[arg-type]
    provenance = {"dataset": case.dataset, **_told(model), "segment": asked.digest()}
    found = {"structures": list(volumes), "cuts": cuts, "lesions": lesions, "cysts": cysts}
    own = {"id": case.id, "patient": case.patient, "attributes": dict(case.attributes), "provenance": provenance}
    disk.write_json(folder / RECORD, own | found)
    if not prediction.windows:
        notes.append(f"nothing in the scan is above {known.spec.window_hu[0]:g} HU: is it a CT?")
    return {
        "id": case.id,
        "volumes_ml": volumes,
        "lesions": lesions,
        "windows": prediction.windows,
        "windows_left_out": prediction.left_out,
        "notes": notes,
    }


def _left_out(name: str, tumors: Tumors, recipe: SegmentRecipe) -> list[str]:
    """A sentence on what was taken for cysts, if anything was."""
    if not tumors.cysts:
        return []
    least = recipe.cut_of(name).least_hu
    return [
        f"{len(tumors.cysts)} darker than {least:g} HU taken for cysts and left out of {name} (case.json says where; "
        f"--set least_hu.{name}=-1024 keeps them)"
    ]


def require_series(dataset: Dataset) -> None:
    """`CaseError` if the scan of a case is no folder of DICOM files, which a SEG of it could refer to."""
    for case in dataset:
        if not isinstance(case.image, Path) or not case.image.is_dir():
            found = case.image.name if isinstance(case.image, Path) else "a scan made by synthoma"
            fix = "leave out --dicom-seg"
            raise CaseError("a DICOM SEG refers to a DICOM series", case=case.id, found=found, fix=fix)


def _file(structure: str) -> str:
    return f"{anatomy.ABDOMENATLAS_NAMES.get(structure, structure)}.nii.gz"


def _refuse(model: Model, case: Case, recipe: SegmentRecipe, device: str, dicom_seg: bool) -> None:
    """What can be told before voxels are read: too large a scan, and a series that no SEG can refer to."""
    if recipe.memory_gb is not None:
        _refuse_large(model, case.read_geometry(), recipe.memory_gb, recipe, device)
    if dicom_seg:
        assert isinstance(case.image, Path)
        require_referable(case.image, case.read_geometry())


def _refuse_large(model: Model, scan: Geometry, most_gb: float, recipe: SegmentRecipe, device: str) -> None:
    needed = estimate_memory(model.spec, scan, recipe, device)
    if needed.bytes > most_gb * 1e9:
        raise RunError(
            "the scan needs more memory than it may",
            found=str(needed),
            expected=f"at most {gigabytes(most_gb * 1e9)} (memory_gb)",
            fix="lower batch or patch, or take a model of fewer classes or larger voxels",
        )


def _told(model: Model | Path | str) -> dict[str, str]:
    """Which model it was, wherever it lies on this machine: its name, and the digest of its file if it has one."""
    if isinstance(model, Model):
        return {"model": str(model.record.get("name", ""))}
    path = find_model(model)
    return {
        "model": path.stem if path.parent == BOX else path.name,
        "model_digest": _digest(path.absolute(), path.stat().st_mtime_ns),
    }


@lru_cache(maxsize=1)
def _digest(path: Path, changed: int) -> str:
    del changed
    return disk.digest(path)
