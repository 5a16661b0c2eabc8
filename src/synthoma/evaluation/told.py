"""Folders of label maps, one a case: what their values mean, by the user's word or a `dataset.json`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from synthoma import anatomy
from synthoma.cases import Case, Label, Source
from synthoma.datasets.labels import Values, label_sources, with_tumors
from synthoma.datasets.layouts import msd, nnunet
from synthoma.datasets.layouts.listing import Listing, case_id, description, list_folder
from synthoma.datasets.layouts.opening import Dataset
from synthoma.errors import LayoutError
from synthoma.evaluation.masks import SingleMask

EXAMPLE = "--labels liver=1,liver_lesion=2"
_SCANS = re.compile(r"(test-)?volume-\d+|imaging|ct")


def open_label_maps(root: Path | str, labels: Values) -> Dataset | None:
    """The true cases of a folder of label maps without scans; None for any other folder.

    labels: structure -> values. Without them it has to be the `labelsTr` or `labelsTs` of a data set, whose
    `dataset.json` tells them.
    """
    root = Path(os.path.abspath(root))
    listing = list_folder(root) if root.is_dir() else None
    if listing is None or not listing.images() or any(map(_SCANS.fullmatch, listing.images().values())):
        return None
    values: Values | None = with_tumors(labels) if labels else None
    if values is None and root.name in ("labelsTr", "labelsTs"):
        values = told_values(listing, root.parent.name) or told_values(list_folder(root.parent), root.parent.name)
    if values is None:
        return None
    names = listing.images().items()
    cases = (Case(case_id(stem), root / file, label_sources(root / file, values)) for file, stem in names)
    return Dataset(root, "label maps", root.name, tuple(cases))


def told_values(listing: Listing, dataset: str) -> Values | None:
    """The values that the `dataset.json` of a folder tells, as nnU-Net or MSD write it; None without one."""
    labels = description(listing).get("labels")
    if labels is None:
        return None
    by_value = isinstance(labels, dict) and all(str(key).isdecimal() for key in labels)
    read = msd.label_values if by_value else nnunet.label_values
    return read(listing.path / "dataset.json", labels, dataset)


def masks_as_in(truth: Case, path: Path) -> Mapping[str, Source]:
    """A predicted map in the values of the truth's map; where the truth has masks, the one that it can be.

    That is its only tumor, or its only structure. Raises `LayoutError` where it has several.
    """
    values = {name: source.values for name, source in truth.masks.items() if isinstance(source, Label)}
    if values:
        return label_sources(path, values)
    lesions = [name for name in truth.masks if anatomy.is_lesion(name)] or list(truth.masks)
    if len(lesions) == 1:
        return {lesions[0]: SingleMask(path, lesions[0])}
    raise LayoutError(
        f"what the values of {path.name} mean is not told",
        case=truth.id,
        found=f"{len(lesions)} structures in the truth",
        fix=f"say {EXAMPLE}, or put a dataset.json with labels into {path.parent}",
    )
