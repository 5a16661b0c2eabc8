"""One folder a case: `ct.nii.gz` beside `segmentations/` (AbdomenAtlas 1.x, TotalSegmentator, ours), or two trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from synthoma import anatomy, disk, files
from synthoma.cases import Case, Source
from synthoma.datasets.labels import PresentLabels, segment_sources
from synthoma.datasets.layouts.listing import Listing, case_id, image_stem, list_folder
from synthoma.errors import LayoutError, SynthomaError
from synthoma.names import name_of_file

SEGMENTATIONS = "segmentations"
COMBINED = "combined_labels"
RECORD = "case.json"

# layout -> (tree of scans, tree of masks)
TREES = {
    "abdomenatlas2": (("ct", "label"),),
    "pants": (("ImageTr", "LabelTr"), ("ImageTe", "LabelTe")),
}


def holds_case(listing: Listing) -> bool:
    """Whether a folder is a case of AbdomenAtlas 1.x, TotalSegmentator or ours, whole or broken."""
    names = (*listing.files, *listing.dangling)
    return SEGMENTATIONS in listing.folders or any(image_stem(name) in ("ct", COMBINED) for name in names)


def read(listing: Listing, dataset: str, labels: Listing | None = None) -> Case:
    """The case in a folder.

    labels: the folder of its masks; unless given it is looked for in a tree beside the scans', else here.
    `case.json`, if there, gives patient and attributes. Without `segmentations/` the masks are those classes
    of `combined_labels` (AbdomenAtlas ids) that have voxels. Raises `LayoutError` for a scan that is missing or
    that there are two of, and for two masks of one structure.
    """
    name = case_id(listing.path.name)
    image = _scan(listing, name)
    record = disk.read_json(listing.path / RECORD) if RECORD in listing.files else {}
    if not isinstance(record, dict) or not isinstance(record.get("attributes", {}), dict):
        raise LayoutError(f"{RECORD} is no record of a case", case=name, found=record)
    masks = _masks(labels or labels_beside(listing) or listing, name)
    return Case(name, image, masks, str(record.get("patient", "")), dataset, attributes=record.get("attributes", {}))


def provenance_of(case: Case) -> dict[str, Any]:
    """Where a case comes from, as the `case.json` beside its masks, else beside its scan, says; empty if none does."""
    masks = next((source for source in case.masks.values() if isinstance(source, Path)), None)
    beside = [masks.parent.parent, masks.parent] if masks else []
    for folder in [*beside, *([case.image.parent] if isinstance(case.image, Path) else [])]:
        if (folder / RECORD).is_file():
            record = disk.read_json(folder / RECORD)
            told = record.get("provenance") if isinstance(record, dict) else None
            return dict(told) if isinstance(told, dict) else {}
    return {}


def _scan(listing: Listing, case: str) -> Path:
    """`ct.nii.gz`, or `ct` with another suffix; anything else beginning with `ct` is one scan too many."""
    scans = [
        name for name, stem in listing.images().items() if stem.lower() == "ct" or stem[:3].lower() in ("ct_", "ct-")
    ]
    if len(scans) == 1 and image_stem(scans[0]) == "ct":
        return listing.path / scans[0]
    if len(scans) > 1:
        raise LayoutError(
            "several scans in one case", case=case, found=" and ".join(scans), expected="one", fix="keep one a folder"
        )
    raise LayoutError("the case has no scan", case=case, found=listing.summary(), expected="ct.nii.gz")


def _masks(listing: Listing, case: str) -> Mapping[str, Source]:
    if SEGMENTATIONS not in listing.folders:
        combined = [name for name, stem in listing.images().items() if stem == COMBINED]
        segmented = [name for name in listing.files if name.endswith(files.SEGMENTS_SUFFIX)]
        if segmented and not combined:
            return _collected(listing, {name: image_stem(name) for name in segmented}, case)
        classes = {name: (value,) for name, value in anatomy.STRUCTURES.items()}
        return PresentLabels(listing.path / combined[0], classes) if combined else {}
    return read_masks(listing.within(SEGMENTATIONS), case)


def read_masks(folder: Listing, case: str) -> dict[str, Source]:
    """The masks in a folder, a file for each structure; a scan among them (`ct.nii.gz`) is none.

    Raises `LayoutError` for two masks of one structure and for a link to nowhere.
    """
    if folder.dangling:
        raise LayoutError("a mask is a link to nowhere", case=case, found=", ".join(folder.dangling))
    return _collected(folder, {file: stem for file, stem in folder.images().items() if stem != "ct"}, case)


def _collected(folder: Listing, stems: Mapping[str, str], case: str) -> dict[str, Source]:
    """Files -> the structures they hold, each once: one a file, or the segments of a `.seg.nrrd`."""
    masks: dict[str, Source] = {}
    origin: dict[str, str] = {}
    for file, stem in stems.items():
        path = folder.path / file
        held: Mapping[str, Source] = {anatomy.canonical_name(name_of_file(stem)): path}
        if file.endswith(files.SEGMENTS_SUFFIX):
            held = segment_sources(path)
        for structure, source in held.items():
            if structure in masks:
                raise LayoutError(
                    f"two masks of {structure}",
                    case=case,
                    found=f"{origin[structure]} and {file}",
                    expected="one",
                    fix="keep one, or rename the other",
                )
            masks[structure], origin[structure] = source, file
    return masks


def tree_fits(layout: str, root: Listing, samples: tuple[Listing, ...]) -> bool:
    """Both trees of the layout are there."""
    return any(scans in root.folders and masks in root.folders for scans, masks in TREES[layout])


def read_trees(layout: str, root: Listing) -> Iterator[Case | SynthomaError]:
    """The cases of two trees: scans without masks are unlabeled cases, masks without a scan are faults."""
    for scans, masks in TREES[layout]:
        there, labels = root.within(scans), root.within(masks)
        for name in there.folders:
            try:
                yield read(list_folder(there.path / name), root.path.name, labels.within(name))
            except SynthomaError as fault:
                yield fault
        for name in labels.folders:
            if name not in there.folders:
                yield LayoutError("masks without a scan", case=case_id(name), expected=f"{scans}/{name}/ct.nii.gz")


def labels_beside(listing: Listing) -> Listing | None:
    """The folder of masks in the other tree, for a case's folder in a tree of scans; None if there is none."""
    tree = listing.path.parent
    for scans, masks in (pair for pairs in TREES.values() for pair in pairs):
        twin = tree.parent / masks / listing.path.name
        if tree.name == scans and twin.is_dir():
            return list_folder(twin)
    return None
