"""Reading what a synthesis left: cases and data sets, the same voxels whatever was written, and single tumors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import anatomy, disk
from synthoma.cases import Case
from synthoma.datasets.catalog import read_catalog
from synthoma.datasets.duplicates import Duplicate, find_duplicates
from synthoma.datasets.layouts import opening
from synthoma.datasets.layouts.joining import join_masks
from synthoma.datasets.layouts.opening import Dataset
from synthoma.errors import CaseError, FileError, LayoutError, SynthomaError
from synthoma.names import file_name, name_of_file
from synthoma.synthesis.store.copies import as_copy
from synthoma.synthesis.store.manifest import MANIFEST, Listed, accepted, read_manifest, versions
from synthoma.synthesis.store.outputs import FORMAT, RECORD, WRITES
from synthoma.synthesis.store.overlay import OVERLAY
from synthoma.synthesis.store.rendered import Rendering
from synthoma.synthesis.tumor import TumorPlan
from synthoma.synthesis.view import TumorView
from synthoma.volume import Box, Volume

VIEW_MM, NEAR_MM = 40.0, 5.0  # around a tumor: what a picture shows, and where voxels of its organ's tumors are its own


def is_synthesis(folder: Path | str) -> bool:
    """Whether this is the output folder of a finished synthesis or replay."""
    return (Path(folder) / RECORD).is_file()


def read_case(path: Path | str, data: Path | str | None = None, allow_modules: Sequence[str] = ()) -> Case:
    """One case of any data set or synthesis: its folder, its scan, or the data set's folder and the case's id.

    Of a synthesis that wrote overlays or plans the voxels are made when asked for, from the healthy scans; data: the
    folder of those, if they no longer lie where they did. allow_modules: generators of the form `module:Class` that
    its manifest may name. Raises `LayoutError` if no case can be found there, and, when read, `CaseError` if the
    healthy scan is another one.
    """
    path = _absolute(path)
    if not is_synthesis(path.parent) or _record(path.parent)["write"] == "full":
        return opening.read_case(path)
    return _rendering(path.parent, name_of_file(path.name), data, allow_modules).case(path.parent.name)


def open_dataset(
    root: Path | str,
    layout: str | None = None,
    data: Path | str | None = None,
    allow_modules: Sequence[str] = (),
    masks: Path | str | None = None,
) -> Dataset:
    """The cases of a folder in any known layout, or of a synthesis; as `read_case`, and `opening.open_dataset`.

    masks: a folder of masks for these scans, see `joining.join_masks`.
    """
    if masks is not None:
        return join_masks(open_dataset(root, layout, data, allow_modules), masks)
    folder = _absolute(root)
    if layout is not None or not is_synthesis(folder) or _record(folder)["write"] == "full":
        return opening.open_dataset(root, layout)
    healthy = open_dataset(_data(folder, data))
    write = _record(folder)["write"]
    cases: list[Case] = []
    faults: list[SynthomaError] = []
    manifest = read_manifest(folder)
    for case in manifest.cases:
        try:
            there = _as_case(healthy[manifest.source(case)], case)
            cases.append(_rendered(folder, there, write, allow_modules).case(folder.name))
        except SynthomaError as fault:
            faults.append(fault.of_case(case))
    return Dataset(folder, write, folder.name, tuple(cases), tuple(faults))


def read_members(data: Path | str) -> tuple[list[dict[str, Any]], list[Duplicate]]:
    """What splits are drawn from: id, patient and attributes of every case, and pairs that hold one scan.

    data: a data set's folder, of which no voxel is read, so that nothing is known of scans that recur; or the catalog
    that `validate` wrote, which knows them and the structures.
    """
    path = Path(data)
    if path.suffix != ".parquet":
        cases = open_dataset(path)
        return [{"id": case.id, "patient": case.patient, "attributes": dict(case.attributes)} for case in cases], []
    catalog = read_catalog(path)
    kept = ("id", "patient", "attributes", "structures")
    rows = [{key: row[key] for key in kept} for row in catalog.rows()]
    return rows, find_duplicates(*catalog.fingerprints())


def input_facts(dataset: Dataset, **others: str) -> dict[str, str]:
    """What a run is asked to read: where the data lie, and what else is told; files are digested case by case."""
    return {"data": str(dataset.root), **others}


def read_lesion(
    path: Path | str, number: int, data: Path | str | None = None, allow_modules: Sequence[str] = ()
) -> TumorView:
    """Tumor 1, 2, ... of a case of a synthesis, in the order they were put in, with its surroundings.

    path: the output folder and the case's id. Raises `CaseError` for a number that there is none of.
    """
    path = _absolute(path)
    if not is_synthesis(path.parent):
        raise LayoutError(f"{path.parent} is no output of a synthesis", expected=f"a {RECORD} in it")
    rendering = _rendering(path.parent, name_of_file(path.name), data, allow_modules)
    return rendering.synthesis().view(number)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Tumors of a synthesis to look at. items: title, before, after, mask. tumors, cases: how many there are."""

    items: list[tuple[str, Volume, Volume, Volume]]
    tumors: int
    cases: int


def find_gallery(
    folder: Path | str, most: int = 24, data: Path | str | None = None, allow_modules: Sequence[str] = ()
) -> Gallery:
    """The tumors of a synthesis by organ and size; of more than `most`, every few, all organs and sizes alike.

    Raises `CaseError` if the synthesis put in no tumor.
    """
    folder = _absolute(folder)
    manifest = read_manifest(folder)
    tumors = sorted(manifest.tumors(), key=lambda tumor: (tumor.organ, tumor.equivalent_diameter_mm))
    if not tumors:
        raise CaseError(f"{folder} holds no tumor to show", found=f"{len(manifest)} cases without one")
    chosen = _evenly(tumors, most)
    views: dict[Listed, tuple[Volume, Volume, Volume]] = {}
    for case in dict.fromkeys(tumor.case for tumor in chosen):
        views |= _views([tumor for tumor in chosen if tumor.case == case], folder, data, allow_modules)
    items = [(f"{one.organ}, {one.equivalent_diameter_mm:.0f} mm", *views[one]) for one in chosen]
    return Gallery(items, len(tumors), len(manifest))


def _views(
    tumors: Sequence[Listed], folder: Path, data: Path | str | None, allow_modules: Sequence[str]
) -> dict[Listed, tuple[Volume, Volume, Volume]]:
    """Before, after and mask around tumors of one case: from the files where the case was written in full.

    Otherwise the case is rendered, once for all of them.
    """
    rendering = _rendering(folder, tumors[0].case, data, allow_modules)
    if _record(folder)["write"] != "full":
        synthesis = rendering.synthesis()
        seen = {tumor: synthesis.view(tumor.number) for tumor in tumors}
        return {tumor: (view.before, view.after, view.mask) for tumor, view in seen.items()}
    made = opening.read_case(folder / file_name(tumors[0].case))
    plans = [TumorPlan.from_dict(row["plan"]) for row in accepted(rendering.rows)]
    return {tumor: _written_view(rendering.healthy, made, plans[tumor.number - 1]) for tumor in tumors}


def _written_view(healthy: Case, made: Case, plan: TumorPlan) -> tuple[Volume, Volume, Volume]:
    """Before, after and the tumor's mask in the box around a plan, as the files hold them, along RAS axes."""
    geometry = made.read_geometry()
    reach_mm = max(plan.axes_mm) + VIEW_MM
    center = geometry.to_ijk(np.asarray(plan.center_mm))
    half = np.ceil(reach_mm / np.asarray(geometry.spacing_mm))
    lower, upper = (np.rint(center - half).astype(int).tolist(), np.rint(center + half).astype(int).tolist())
    box = Box(tuple(lower), tuple(upper)).clip(geometry.shape)
    after = made.read_image(box)
    lesion = made.read_mask(anatomy.organ(plan.organ).lesion, box)
    near = np.linalg.norm(after.geometry.points_mm() - plan.center_mm, axis=-1) < max(plan.axes_mm) + NEAR_MM
    mask = Volume(lesion.data & near, after.geometry)
    before = healthy.read_image(box)
    return before.reorient("RAS"), after.reorient("RAS"), mask.reorient("RAS")


def _evenly(tumors: Sequence[Listed], most: int) -> list[Listed]:
    """At most so many tumors, from every organ the same number as far as it goes, in even steps of their order."""
    by_organ: dict[str, list[Listed]] = {}
    for tumor in tumors:
        by_organ.setdefault(tumor.organ, []).append(tumor)
    shares = dict.fromkeys(by_organ, 0)
    for _ in range(min(most, len(tumors))):
        open_ones = [organ for organ in by_organ if shares[organ] < len(by_organ[organ])]
        shares[min(open_ones, key=lambda organ: shares[organ])] += 1
    return [
        by_organ[organ][int((number + 0.5) * len(by_organ[organ]) / share)]
        for organ, share in shares.items()
        for number in range(share)
    ]


def _rendering(folder: Path, case: str, data: Path | str | None, allow_modules: Sequence[str]) -> Rendering:
    write = _record(folder)["write"]
    source = read_manifest(folder).source(case)
    healthy = read_case(_data(folder, data) / file_name(source))
    return _rendered(folder, _as_case(healthy, case), write, allow_modules)


def _rendered(folder: Path, healthy: Case, write: str, allow_modules: Sequence[str]) -> Rendering:
    overlay = folder / file_name(healthy.id) / OVERLAY if write == "overlay" else None
    return Rendering(healthy, folder / MANIFEST, overlay, tuple(allow_modules))


def _as_case(healthy: Case, case: str) -> Case:
    return healthy if healthy.id == case else as_copy(healthy, case)


def _record(folder: Path) -> dict[str, Any]:
    record = disk.read_json(folder / RECORD)
    if not isinstance(record, dict) or "format" not in record:
        raise FileError(f"{folder / RECORD} is no record of a synthesis", fix="synthesize again")
    if record["format"] != FORMAT:
        raise LayoutError(
            f"{folder} is a synthesis of another format",
            found=f"format {record.get('format')}, written by {record.get('versions')}",
            expected=f"format {FORMAT}, which {versions()} reads",
            fix="read it with the version that wrote it",
        )
    place = record.get("data")
    if not isinstance(place, dict) or not isinstance(place.get("relative"), str) or record.get("write") not in WRITES:
        raise FileError(f"{folder / RECORD} is damaged", fix="synthesize again")
    return record


def _data(folder: Path, data: Path | str | None) -> Path:
    """Where the healthy scans of a synthesis lie."""
    if data is not None:
        return _absolute(data)
    found = _absolute(folder / _record(folder)["data"]["relative"])
    if found.is_dir():
        return found
    raise LayoutError(
        f"the healthy scans that {folder} was made from are not where they were",
        found=f"no folder {found}",
        fix="say where they are with data= (--data)",
    )


def _absolute(path: Path | str) -> Path:
    return Path(os.path.abspath(path))


def _case_png(case: Case) -> bytes:
    from synthoma.pictures import as_png, show_case

    return as_png(lambda file: show_case(case, file))


Case.draw = staticmethod(_case_png)  # pictures stand above cases, so the door hands their function down
