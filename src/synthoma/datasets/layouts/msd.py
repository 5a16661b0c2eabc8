"""Medical Segmentation Decathlon folders: `dataset.json`, `imagesTr/`, `labelsTr/`, `imagesTs/`.

Raw folders of the first nnU-Net are the same, but a scan is called `CASE_0000.nii.gz` and listed as `CASE.nii.gz`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from synthoma.cases import Case
from synthoma.datasets.labels import Values, label_sources, structure_names, with_tumors
from synthoma.datasets.layouts.listing import Listing, Shelf, case_id, description, image_stem, relative_path
from synthoma.errors import LayoutError, SynthomaError

FIRST_CHANNEL = "_0000"


def fits(root: Listing, samples: tuple[Listing, ...]) -> bool:
    """A `dataset.json` that lists its training cases."""
    declared = description(root)
    return "training" in declared and "channel_names" not in declared


def read(root: Listing) -> Iterator[Case | SynthomaError]:
    """The cases `dataset.json` lists, test cases without masks, and a fault for each lie in it."""
    where = root.path / "dataset.json"
    declared = description(root)
    _require_ct(where, declared.get("modality"))
    values = label_values(where, declared.get("labels"), root.path.name)
    shelf = Shelf(root.path)
    training, test = _entries(where, declared, "training"), _entries(where, declared, "test")
    yield from (_read_entry(shelf, entry, values, is_test=False) for entry in training)
    yield from (_read_entry(shelf, entry, values, is_test=True) for entry in test)
    yield from _unlisted(shelf, [*training, *test])
    told = declared.get("numTraining")
    if told is not None and told != len(training):
        yield LayoutError(f"{where} miscounts itself", found=f"numTraining {told}", expected=len(training))


def label_values(where: Path, labels: Any, dataset: str) -> dict[str, tuple[int, ...]]:
    """`{"0": "background", "1": "liver", "2": "cancer"}` as structures and values, tumors inside organs."""
    fault = LayoutError(
        f"{where} has no usable labels", found=labels, expected='{"0": "background", "1": "liver", ...}'
    )
    if not isinstance(labels, dict) or not all(isinstance(name, str) for name in labels.values()):
        raise fault
    try:
        numbered = {name: int(value) for value, name in labels.items() if int(value) != 0}
    except ValueError as error:
        raise fault from error
    if len(numbered) < len(labels) - 1 or any(not 0 < value < 2**16 for value in numbered.values()):
        raise fault
    names = structure_names(numbered, dataset)
    return with_tumors({names[label]: (value,) for label, value in numbered.items()})


def _require_ct(where: Path, modality: Any) -> None:
    channels = list(modality.values()) if isinstance(modality, dict) else modality
    if channels is not None and channels != ["CT"]:
        raise LayoutError(f"{where} does not describe CT", found=channels, expected="one channel, CT")


def _entries(where: Path, declared: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = declared.get(key, [])
    if not isinstance(entries, list):
        raise LayoutError(f"{where}: {key} is no list", found=type(entries).__name__)
    return [entry if isinstance(entry, dict) else {"image": entry} for entry in entries]


def _read_entry(shelf: Shelf, entry: dict[str, Any], values: Values, is_test: bool) -> Case | SynthomaError:
    image = entry.get("image")
    name = _case_of(str(image))
    try:
        scan = shelf.find(image, name, FIRST_CHANNEL)
        if is_test and "label" not in entry:
            masks = {}
        else:
            masks = label_sources(shelf.find(entry.get("label"), name), values)
    except SynthomaError as fault:
        return fault
    if name is None:
        return LayoutError("dataset.json lists a file that is no image", found=image)
    split = {"split": "test"} if is_test else {}
    return Case(name, scan, masks, dataset=shelf.root.name, attributes=split)


def _case_of(image: str) -> str | None:
    """The id of a scan, None for what is no image."""
    stem = image_stem(relative_path(image).name)
    return case_id(stem) if stem else None


def _unlisted(shelf: Shelf, entries: list[dict[str, Any]]) -> Iterator[SynthomaError]:
    """A fault for each image or label map that is there but not in `dataset.json`."""
    told = [(key, entry[key]) for entry in entries for key in ("image", "label") if isinstance(entry.get(key), str)]
    listed = {relative_path(text) for _, text in told}
    for path in (relative_path(text) for key, text in told if key == "image"):
        stem = image_stem(path.name)
        listed.add(path.with_name(f"{stem}{FIRST_CHANNEL}{path.name[len(stem) :]}"))
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        for name, stem in shelf.listing(folder).images().items():
            if PurePosixPath(folder, name) not in listed:
                yield LayoutError(
                    f"{folder}/{name} is not in dataset.json", case=stem, fix="list it there, or take it away"
                )
