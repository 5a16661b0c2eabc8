"""Data sets put together: several folders as one, and scans in one folder with masks in another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from synthoma.cases import Case, Source
from synthoma.datasets.labels import label_sources
from synthoma.datasets.layouts import folders, nnunet
from synthoma.datasets.layouts.dicom import OutlinedMasks, SeriesFolder
from synthoma.datasets.layouts.listing import Listing, case_id, description, list_folder
from synthoma.datasets.layouts.opening import Dataset
from synthoma.datasets.layouts.predictions import case_of_prediction
from synthoma.errors import LayoutError, SynthomaError, listed
from synthoma.names import usable_name

SEGMENT_FIRST = "segment the organs first (TotalSegmentator -i CT.nii.gz -o MASKS/CASE) and join them: --masks MASKS"


def join_datasets(datasets: Sequence[Dataset]) -> Dataset:
    """The cases of all data sets as one; of two cases of one id the second is called `ID_DATASET`, its patient kept.

    So the copies of a synthesis stay with the patients of the healthy scans. A new name is in the case's attributes
    (`renamed_from`).
    """
    if len(datasets) == 1:
        return datasets[0]
    cases: dict[str, Case] = {}
    for dataset in datasets:
        for case in dataset:
            name, number = case.id, 1
            while name in cases:
                name = usable_name(f"{case.id}_{dataset.name}{'' if number == 1 else f'_{number}'}")
                number += 1
            if name != case.id:
                case = replace(case, id=name, attributes={**case.attributes, "renamed_from": case.id})
            cases[name] = case
    faults = tuple(fault for dataset in datasets for fault in dataset.faults)
    others = tuple(path for dataset in datasets for path in dataset.others)
    layouts = list(dict.fromkeys(dataset.layout for dataset in datasets))
    names = " and ".join(dict.fromkeys(dataset.name for dataset in datasets))
    return Dataset(datasets[0].root, " and ".join(layouts), names, tuple(cases.values()), faults, others)


def renamed(dataset: Dataset) -> dict[str, str]:
    """New id -> old id, of the cases that `join_datasets` had to rename."""
    told = {case.id: case.attributes.get("renamed_from") for case in dataset}
    return {name: str(old) for name, old in told.items() if old is not None}


def require_masks(dataset: Dataset) -> None:
    """`LayoutError` with what to run if no case of the data set has a mask."""
    if dataset.cases and all(isinstance(case.masks, dict) and not case.masks for case in dataset):
        raise LayoutError(
            f"no case of {dataset.root} has a mask",
            found=f"{len(dataset)} scans ({dataset.layout})",
            expected="masks of organs",
            fix=SEGMENT_FIRST,
        )


def join_masks(dataset: Dataset, root: Path | str) -> Dataset:
    """The data set with the masks of another folder besides its own.

    root: `CASE/NAME.nii.gz` or `CASE/segmentations/NAME.nii.gz`, as TotalSegmentator and our own commands write;
    `CASE.nii.gz` label maps beside a `dataset.json` that names their labels; `CASE/*.dcm`, SEG or RTSTRUCT objects that
    refer to the scan; or, for a single scan, `NAME.nii.gz` or the objects themselves.
    A structure that a case has already is a fault of the case. Raises `LayoutError` if nothing fits any case.
    """
    listing = list_folder(Path(root))
    faults: list[SynthomaError] = []
    found = dict(_masks_of(listing, dataset, faults))
    fitting = [case for case in dataset if case.id in found]
    if not fitting and faults:
        raise faults[0]
    if not fitting:
        raise LayoutError(
            f"no masks in {root} fit a case of {dataset.root}",
            found=listing.summary(),
            expected=f"folders or label maps named {', '.join(case.id for case in dataset.cases[:3])}",
            fix="name them as their scans",
        )
    cases = []
    for case in dataset:
        added = found.get(case.id, {})
        twice = sorted(set(added) & set(case.masks)) if added else []
        if twice:
            faults.append(LayoutError("two masks of a structure", case=case.id, found=", ".join(twice), expected="one"))
        else:
            cases.append(replace(case, masks={**case.masks, **added}) if added else case)
    return replace(dataset, cases=tuple(cases), faults=(*dataset.faults, *faults))


def masks_on_series(root: Path | str, series: Dataset) -> Dataset:
    """The masks of a folder as cases, each with the folder of the DICOM series that they were drawn on as its scan.

    root: as for `join_masks`. A case is that of the series of the same name, or of the only folder there is, in which
    the masks' grid tells the series, unless some are named like it. Masks without a series are faults. Raises
    `LayoutError` if nothing fits.
    """
    listing = list_folder(Path(root))
    if any(not isinstance(case.image, Path) or not case.image.is_dir() for case in series):
        raise LayoutError(f"{series.root} holds no DICOM series", found=series.layout, expected="dicom: CASE/*.dcm")
    cases: list[Case] = []
    faults: list[SynthomaError] = []
    held = [(case_of_prediction(name, series), name, masks) for name, masks in _held(listing, series)]
    named = any(own in series for own, _, _ in held)
    for own, name, masks in held:
        if own not in series and (named or len(series) > 1):
            known = listed([case.id for case in series], 3)
            faults.append(LayoutError("masks without a series", case=case_id(name), expected=f"one of {known}"))
            continue
        scan = series[own] if own in series else series.cases[0]
        try:
            found = masks if isinstance(masks, Mapping) else folders.read_masks(masks, own)
            if found:
                place = SeriesFolder(scan.image)  # type: ignore[arg-type]  # a folder, as is checked above
                cases.append(Case(case_id(own), place, found, scan.patient, scan.dataset))
        except SynthomaError as fault:
            faults.append(fault.of_case(case_id(own)))
    if not cases and faults:
        raise faults[0]
    if not cases:
        raise LayoutError(f"{root} holds no masks", found=listing.summary(), expected="CASE/segmentations/NAME.nii.gz")
    return replace(series, cases=tuple(cases), faults=(*series.faults, *faults))


def _held(listing: Listing, series: Dataset) -> Iterator[tuple[str, Mapping[str, Source] | Listing]]:
    """Names of cases with their label maps, or with the folders of their masks."""
    labels = description(listing).get("labels")
    if labels is not None:
        values = nnunet.label_values(listing.path / "dataset.json", labels, series.name)
        yield from ((stem, label_sources(listing.path / file, values)) for file, stem in listing.images().items())
        return
    if len(series) == 1 and listing.images():
        yield series.cases[0].id, listing
    yield from ((name, _shelf(listing.path / name)) for name in listing.folders)


def _masks_of(
    listing: Listing, dataset: Dataset, faults: list[SynthomaError]
) -> Iterator[tuple[str, Mapping[str, Source]]]:
    """Case -> its masks, of every entry that fits a case; broken ones are added to `faults`."""
    labels = description(listing).get("labels")
    if labels is not None:
        values = nnunet.label_values(listing.path / "dataset.json", labels, dataset.name)
        for file, stem in listing.images().items():
            yield case_of_prediction(stem, dataset), label_sources(listing.path / file, values)
        return
    alone = len(dataset) == 1 and (listing.images() or listing.has_dicom())
    shelves = [(dataset.cases[0].id, listing)] if alone else []
    shelves += [(case_of_prediction(name, dataset), _shelf(listing.path / name)) for name in listing.folders]
    for name, shelf in shelves:
        if name not in dataset:
            continue
        try:
            masks = _read(shelf, dataset[name])
        except SynthomaError as fault:
            faults.append(fault.of_case(name))
            continue
        if masks:
            yield name, masks


def _shelf(path: Path) -> Listing:
    listing = list_folder(path)
    return listing.within(folders.SEGMENTATIONS) if folders.SEGMENTATIONS in listing.folders else listing


def _read(shelf: Listing, case: Case) -> Mapping[str, Source]:
    """The masks of one folder: files a structure, else the structures of DICOM objects."""
    masks = folders.read_masks(shelf, case.id)
    if masks or not shelf.has_dicom() or not isinstance(case.image, Path):
        return masks
    return dict(OutlinedMasks(case.image, shelf.path, case.dataset))
