"""Data sets of any layout to MSD, nnU-Net v2, AbdomenAtlas or DICOM folders, case by case."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pydantic

from synthoma import anatomy, disk, files
from synthoma.cases import Case
from synthoma.datasets.dicom_writing import (
    Drawn,
    require_origin,
    require_segments,
    write_segmentation_case,
    write_series_case,
)
from synthoma.datasets.labels import unknown_values
from synthoma.datasets.layouts.listing import natural
from synthoma.datasets.layouts.opening import WRITABLE, Dataset
from synthoma.datasets.painting import annotated, paint
from synthoma.datasets.splits import SplitRecipe, draw_splits, write_nnunet_splits
from synthoma.datasets.writing import report, write_case
from synthoma.errors import CaseError, LayoutError, listed
from synthoma.names import file_name
from synthoma.recipe import Recipe

SPLITS, FOLDS = "splits_final.json", 5  # nnU-Net's own file and number


class ConvertRecipe(Recipe):
    """What to write. Label values of MSD and nnU-Net are 1, 2, ... in the order of `structures`."""

    structures: tuple[str, ...] = pydantic.Field(
        (), description="which structures, in this order; empty: all that any case has"
    )
    missing: Literal["error", "empty"] = pydantic.Field(
        "error", description="MSD, nnU-Net: a structure that a case lacks stops it, or is called absent"
    )
    name: str = pydantic.Field("", description="of the data set, in dataset.json; empty: the folder's")
    drawn: Drawn = pydantic.Field("", description="DICOM: how masks were drawn; empty: as case.json says")
    algorithm: str = pydantic.Field("", description="DICOM: the program that drew masks, and after a space its version")
    anonymous: bool = pydantic.Field(False, description="dicom-seg: leave out the patient of the series")


@dataclass(frozen=True)
class Conversion:
    """What is the same for every case. values: structure -> label value; for AbdomenAtlas only the names count."""

    layout: str
    out: Path
    name: str
    values: Mapping[str, int]
    missing: Literal["error", "empty"]
    source: str
    drawn: Drawn = ""
    algorithm: str = ""
    anonymous: bool = False

    @property
    def is_map(self) -> bool:
        """Whether label maps are written, which cannot say that nobody looked for a structure."""
        return self.layout in ("msd", "nnunet")


def plan_conversion(
    dataset: Dataset, layout: str, out: Path | str, recipe: ConvertRecipe, sources: Iterable[Path] = ()
) -> Conversion:
    """Decides what holds for all cases; writes nothing. sources: further folders that the cases come from.

    Without chosen structures, every case is asked what it has (a label map that does not say is read).
    Raises `LayoutError` for a layout that is not written, a folder inside the source, or too many labels.
    """
    out = Path(out)
    require_origin(recipe.drawn, recipe.algorithm)
    if layout not in WRITABLE:
        raise LayoutError(f"{layout!r} is not written", expected=f"one of {', '.join(WRITABLE)}")
    for source in (dataset.root, *sources):
        if out.resolve().is_relative_to(source.resolve()):
            fix = f"choose --out outside {source}"
            raise LayoutError("the result would lie in the data it is made from", found=out, fix=fix)
    present = _all_structures(dataset)
    names = list(dict.fromkeys(anatomy.canonical_name(name) for name in recipe.structures or present))
    if anatomy.IGNORE in present:  # else what nobody annotated would become background; the last label, as nnU-Net asks
        names = [*(name for name in names if name != anatomy.IGNORE), anatomy.IGNORE]
    if layout in ("msd", "nnunet") and len(names) > 255:
        raise LayoutError("too many structures for one label map", found=len(names), expected="up to 255")
    values = {name: value for value, name in enumerate(names, start=1)}
    return Conversion(
        layout, out, recipe.name or out.resolve().name, values, recipe.missing, dataset.layout,
        recipe.drawn, recipe.algorithm, recipe.anonymous,
    )  # fmt: skip


def require_annotated(dataset: Dataset, conversion: Conversion, allowed: int = 0) -> None:
    """`CaseError` if more than `allowed` cases cannot be written for what is, or is not, known of their masks.

    To be asked before anything is written. Label maps: a case that lacks a structure which others have, since a label
    map cannot say that nobody looked for it; cases without any mask are left alone, as they are written as test cases.
    DICOM: masks that nobody says who drew, and for `dicom-seg` a case without any of the structures.
    """
    if conversion.layout.startswith("dicom"):
        kept = [_kept(case, conversion) for case in dataset]
        segments = conversion.layout == "dicom-seg"
        require_segments(kept, segments, conversion.drawn, conversion.algorithm, allowed)
        return
    if not conversion.is_map or conversion.missing == "empty":
        return
    cases = [case for case in dataset if case.masks]
    lacking = {case.id: _lacking(case, conversion) for case in cases}
    lacking = {case: names for case, names in lacking.items() if names}
    if len(lacking) <= allowed:
        return
    lacked = {name for names in lacking.values() for name in names}
    common = [name for name in conversion.values if name not in lacked and name != anatomy.IGNORE]
    examples = [f"{case} has no {listed(names, 3)}" for case, names in lacking.items()]
    shown = json.dumps(common, ensure_ascii=False, separators=(",", ":"))
    some = f"write what all cases have with --set 'structures={shown}', or" if common else "no structure is in all:"
    raise CaseError(
        "the cases annotate different structures, which a label map cannot say",
        found=f"{len(lacking)} of {len(cases)} cases lack some: {listed(examples, 2)}",
        fix=f'{some} call what is not annotated absent with --set missing="empty"',
    )


def _remove_earlier(case: Case, conversion: Conversion) -> None:
    """Take away what an earlier start wrote of a case: if it fails now, old files would pass for new ones."""
    name = file_name(case.id)
    if not conversion.is_map:
        disk.remove_folder(conversion.out / name)
        return
    for tail in ("Tr", "Ts"):
        for file in (f"images{tail}/{name}{_channel(conversion)}", f"labels{tail}/{name}"):
            (conversion.out / f"{file}.nii.gz").unlink(missing_ok=True)


def _channel(conversion: Conversion) -> str:
    """What the name of a scan ends with."""
    return "_0000" if conversion.layout == "nnunet" else ""


def _lacking(case: Case, conversion: Conversion) -> list[str]:
    """The structures of the label map that nobody looked for in a case."""
    return [name for name in conversion.values if name != anatomy.IGNORE and not annotated(case, name)]


def convert_case(case: Case, conversion: Conversion) -> dict[str, Any]:
    """Writes one case; what was written, as plain data.

    MSD, nnU-Net: a case without any mask goes to `imagesTs`, as do test cases. The record says how many voxels
    of which structure went to which other (`overwritten`). Raises `CaseError` for a structure that others have
    and this case lacks, unless told to call it absent; `LayoutError` for label values that mean nothing here;
    `GeometryError` for a mask on another grid.
    """
    _remove_earlier(case, conversion)
    _refuse_unknown_values(case)
    if conversion.layout.startswith("dicom"):
        return _write_dicom(_kept(case, conversion), conversion)
    if conversion.layout == "abdomenatlas":
        names = [name for name in conversion.values if name in case.masks]
        provenance = {"dataset": case.dataset, "layout": conversion.source}
        record = write_case(case, conversion.out / file_name(case.id), names, provenance=provenance)
        listed = [{**file, "path": f"{file_name(case.id)}/{file['path']}"} for file in record["files"]]
        return {**record, "files": listed}
    lacking = _lacking(case, conversion)
    if lacking and case.masks and conversion.missing == "error":
        raise CaseError(
            "not annotated, which a label map cannot say",
            case=case.id,
            found=f"no {', no '.join(lacking)}",
            expected=", ".join(conversion.values),
            fix='--set structures=[...] with what every case has, or --set missing="empty" to call it absent',
        )
    return _write_pair(case, conversion, [name for name in conversion.values if annotated(case, name)])


def _kept(case: Case, conversion: Conversion) -> Case:
    """The case with those of its masks that are to be written."""
    return replace(case, masks={name: case.masks[name] for name in conversion.values if name in case.masks})


def _write_dicom(case: Case, conversion: Conversion) -> dict[str, Any]:
    if conversion.layout == "dicom":
        return write_series_case(case, conversion.out, conversion.drawn, conversion.algorithm)
    return write_segmentation_case(case, conversion.out, conversion.drawn, conversion.algorithm, conversion.anonymous)


def finish_conversion(conversion: Conversion, records: Iterable[Mapping[str, Any]]) -> Path | None:
    """Writes `dataset.json` for the records of the converted cases, in any order; None if there is none to write.

    It names the patient of every case under `patients`, which nnU-Net passes over and our readers use. For nnU-Net
    `splits_final.json` is written too: five folds, or fewer for fewer patients, all cases of a patient on one side.
    Without a single label map nothing is written.
    """
    if not conversion.is_map:
        return None
    rows = sorted(records, key=lambda record: natural(record["id"]))
    training = [row for row in rows if row["split"] == "train"]
    if not any(len(row["files"]) > 1 for row in rows):
        return None
    if conversion.layout == "nnunet":
        about: dict[str, Any] = {
            "name": conversion.name,
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, **conversion.values},
            "numTraining": len(training),
            "file_ending": ".nii.gz",
        }
        _write_folds(training, conversion.out / SPLITS)
    else:
        test = [row for row in rows if row["split"] == "test"]
        about = {
            "name": conversion.name,
            "tensorImageSize": "3D",
            "modality": {"0": "CT"},
            "labels": {"0": "background", **{str(value): name for name, value in conversion.values.items()}},
            "numTraining": len(training),
            "numTest": len(test),
            "training": [_msd_entry(row) for row in training],
            "test": [_msd_entry(row) for row in test],
        }
    about["patients"] = {file_name(row["id"]): row["patient"] for row in rows}
    disk.write_json(conversion.out / "dataset.json", about)
    return conversion.out / "dataset.json"


def _write_folds(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """nnU-Net's folds by patient, in the names of the files; none for a single patient."""
    members = [{"id": file_name(row["id"]), "patient": row["patient"], "attributes": {}} for row in rows]
    patients = len({row["patient"] for row in rows})
    if patients > 1:
        write_nnunet_splits(draw_splits(members, SplitRecipe(folds=min(FOLDS, patients))), path)


def _all_structures(dataset: Dataset) -> list[str]:
    """What any case has, in the order of `anatomy.STRUCTURES`, others after by name."""
    found = {name for case in dataset for name in case.masks}
    return [name for name in anatomy.STRUCTURES if name in found] + sorted(found.difference(anatomy.STRUCTURES))


def _refuse_unknown_values(case: Case) -> None:
    with case.named():
        for path, values in unknown_values(case).items():
            raise LayoutError(
                f"{path} holds label values that no structure has",
                found=", ".join(map(str, values[:10])),
                fix="name them in dataset.json, or choose the layout that the labels follow",
            )


def _write_pair(case: Case, conversion: Conversion, structures: list[str]) -> dict[str, Any]:
    """Image and label map on one grid, named as the layout asks."""
    split = "test" if not case.masks or case.attributes.get("split") == "test" else "train"
    tail = "Ts" if split == "test" else "Tr"
    channel = _channel(conversion)
    scan = case.read_image()
    written = [conversion.out / f"images{tail}" / f"{file_name(case.id)}{channel}.nii.gz"]
    files.write_volume(scan, written[0])
    facts: dict[str, Any] = {"split": split, "structures": structures}
    if case.masks:
        painted = paint(case, {name: conversion.values[name] for name in structures}, scan.geometry)
        written.append(conversion.out / f"labels{tail}" / f"{file_name(case.id)}.nii.gz")
        files.write_volume(painted.labels, written[1])
        facts["overwritten"] = painted.overwritten
    return report(case, conversion.out, written, **facts)


def _msd_entry(row: Mapping[str, Any]) -> str | dict[str, str]:
    image, *label = (f"./{file['path']}" for file in row["files"])
    return {"image": image, "label": label[0]} if label else image
