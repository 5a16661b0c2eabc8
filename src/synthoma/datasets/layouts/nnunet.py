"""nnU-Net v2 raw folders: `dataset.json`, `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`, `imagesTs/`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synthoma import disk, files
from synthoma.cases import Case
from synthoma.datasets.labels import Values, label_sources, structure_names, with_tumors
from synthoma.datasets.layouts.listing import Listing, case_id, description
from synthoma.errors import LayoutError, SynthomaError

LISTED_LOOK = '{"CASE": {"images": ["one file"], "label": "a file"}}'
LABELS_LOOK = '{"background": 0, "liver": 1, "tumor": 2} or lists of values'


def under_raw(root: Path) -> Path:
    """The folder itself if it is there, else the one of this name under `$nnUNet_raw`."""
    raw = os.environ.get("nnUNet_raw")  # noqa: SIM112  # nnU-Net's own spelling
    if raw and not root.exists() and (Path(raw) / root).is_dir():
        return Path(raw) / root
    return root


def fits(root: Listing, samples: tuple[Listing, ...]) -> bool:
    """A `dataset.json` with `channel_names`."""
    return "channel_names" in description(root)


def read(root: Listing) -> Iterator[Case | SynthomaError]:
    """The cases of `imagesTr` and `imagesTs` (attribute split: test), a fault for whatever does not fit."""
    where = root.path / "dataset.json"
    declared = description(root)
    channels = declared.get("channel_names")
    if not isinstance(channels, dict) or list(channels.values()) != ["CT"]:
        raise LayoutError(f"{where} does not describe CT", found=channels, expected='{"0": "CT"}')
    ending = declared.get("file_ending")
    if not ending or files.suffix_of(f"case{ending}") != ending:
        raise LayoutError(f"{where}: file_ending", found=ending, expected=" or ".join(files.SUFFIXES))
    values = label_values(where, declared.get("labels"), root.path.name)
    if "dataset" in declared:
        yield from _read_listed(root, declared["dataset"], values)
        return
    yield from _read_pair(root, "imagesTr", "labelsTr", ending, values)
    yield from _read_pair(root, "imagesTs", "labelsTs", ending, values)
    told, trained = declared.get("numTraining"), len(_channels(root.within("imagesTr"), ending)[0])
    if told != trained:
        yield LayoutError(f"{where} miscounts its cases", found=f"numTraining {told}", expected=trained)


def label_values(where: Path, labels: Any, dataset: str) -> dict[str, tuple[int, ...]]:
    """`{"background": 0, "liver": [1, 2], "tumor": 2, "ignore": 3}` as structures and values.

    Organs hold their tumors. `ignore` stays a structure of its own: voxels that nobody annotated.
    """
    fault = LayoutError(f"{where} has no usable labels", found=labels, expected=LABELS_LOOK)
    if not isinstance(labels, dict):
        raise fault
    regions = {name: value if isinstance(value, list) else [value] for name, value in labels.items()}
    values = [value for region in regions.values() for value in region]
    if not all(regions.values()) or not all(type(value) is int and 0 <= value < 2**16 for value in values):
        raise fault
    used = sorted(set(values))
    if used != list(range(len(used))):
        raise LayoutError(f"{where}: label values have gaps", found=used, expected="0, 1, 2, ...")
    wanted = {name: tuple(region) for name, region in regions.items() if region != [0]}
    names = structure_names(wanted, dataset)
    return with_tumors({names[label]: region for label, region in wanted.items()})


def splits(root: Listing) -> list[dict[str, list[str]]] | None:
    """`splits_final.json` of this folder or of its twin under `$nnUNet_preprocessed`; None without one."""
    preprocessed = os.environ.get("nnUNet_preprocessed")  # noqa: SIM112  # nnU-Net's own spelling
    places = [root.path] + ([Path(preprocessed) / root.path.name] if preprocessed else [])
    for path in (place / "splits_final.json" for place in places):
        if path.is_file():
            folds = disk.read_json(path)
            if not isinstance(folds, list) or not all(_is_fold(fold) for fold in folds):
                raise LayoutError(f"{path} holds no splits", expected='[{"train": [...], "val": [...]}]')
            return [{key: [case_id(name) for name in fold[key]] for key in ("train", "val")} for fold in folds]
    return None


def _is_fold(fold: Any) -> bool:
    return isinstance(fold, dict) and all(
        isinstance(fold.get(key), list) and all(isinstance(name, str) for name in fold[key]) for key in ("train", "val")
    )


def _read_pair(
    root: Listing, images: str, labels: str, ending: str, values: dict[str, tuple[int, ...]]
) -> Iterator[Case | SynthomaError]:
    """The cases of one folder of images; only test cases may go without labels."""
    scans, strange = _channels(root.within(images), ending)
    shelf = root.within(labels)
    maps = {name.removesuffix(ending): shelf.path / name for name in shelf.files if name.endswith(ending)}
    for name in strange:
        yield LayoutError(f"{images}/{name} is not named as nnU-Net asks", expected=f"CASE_0000{ending}")
    for name, channels in scans.items():
        if channels != ["0000"]:
            yield LayoutError(
                "one CT channel a case", case=case_id(name), found=f"channels {channels}", expected="0000"
            )
        elif name not in maps and images == "imagesTr":
            gone = "a link to nowhere" if f"{name}{ending}" in shelf.dangling else None
            yield LayoutError(
                "the case has no label map", case=case_id(name), found=gone, expected=f"{labels}/{name}{ending}"
            )
        else:
            masks = label_sources(maps[name], values) if name in maps else {}
            split = {"split": "test"} if images == "imagesTs" else {}
            image = root.path / images / f"{name}_0000{ending}"
            yield Case(case_id(name), image, masks, dataset=root.path.name, attributes=split)
    for name in sorted(maps.keys() - scans.keys()):
        yield LayoutError("a label map without an image", case=case_id(name), expected=f"{images}/{name}_0000{ending}")


def _read_listed(root: Listing, listed: Any, values: Values) -> Iterator[Case | SynthomaError]:
    """The cases of `dataset.json`'s own list, `{"CASE": {"images": [...], "label": ...}}`, files wherever they lie."""
    if not isinstance(listed, dict):
        where = root.path / "dataset.json"
        raise LayoutError(f"{where}: dataset is no table", found=type(listed).__name__, expected=LISTED_LOOK)
    for name, entry in listed.items():
        case = case_id(str(name))
        paths = [*entry["images"], entry["label"]] if _is_entry(entry) else []
        if len(paths) != 2:
            yield LayoutError("dataset.json lists no pair of files", case=case, found=entry, expected=LISTED_LOOK)
            continue
        image, label = (Path(os.path.abspath(root.path / path.replace("\\", "/"))) for path in paths)
        gone = [str(path) for path in (image, label) if not path.is_file()]
        if gone:
            fix = "fetch the file, or take the case out of dataset.json"
            yield LayoutError("dataset.json names a file that is not there", case=case, expected=gone[0], fix=fix)
        else:
            yield Case(case, image, label_sources(label, values), dataset=root.path.name)


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("images"), list):
        return False
    return all(isinstance(path, str) for path in (*entry["images"], entry.get("label")))


def _channels(listing: Listing, ending: str) -> tuple[dict[str, list[str]], list[str]]:
    """Case -> the channels it has, and the names that follow no rule."""
    scans: dict[str, list[str]] = {}
    strange = []
    for name in listing.files:
        match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", name)
        if match:
            scans.setdefault(match[1], []).append(match[2])
        else:
            strange.append(name)
    return scans, strange
