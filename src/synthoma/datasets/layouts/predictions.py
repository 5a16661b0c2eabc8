"""Flat folders of predicted label maps: which case a file belongs to, by the names that challenges ask for."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from synthoma.datasets.layouts.listing import Listing, case_id

# What a prediction is called -> what its case may be called, in the words of the challenge.
_NAMES = (
    (r"(?:test-)?segmentation-(\d+)", ("test-volume-{}", "volume-{}")),  # LiTS
    (r"prediction_(\d+)", ("case_{}",)),  # KiTS
    (r"(.+)_0000", ("{}",)),  # nnU-Net, named as the scan
)


def is_flat(root: Listing) -> bool:
    """Whether a folder holds label maps and no scans beside them: one file a case."""
    stems = set(root.images().values())
    scans = {f"volume-{stem.rpartition('-')[2]}" for stem in stems if re.fullmatch(r"(test-)?segmentation-\d+", stem)}
    folders = {"imagesTr", "labelsTr", "ImageTr", "ct"}
    return bool(stems) and not scans & stems and not folders.intersection(root.folders)


def case_of_prediction(stem: str, cases: Container[str]) -> str:
    """The case that a predicted label map is of: named alike, or as its challenge names predictions.

    stem: the file's name without suffix. Gives the name itself if no case fits.
    """
    name = case_id(stem)
    return next((one for one in _readings(name) if one in cases), name)


def _readings(name: str) -> Iterator[str]:
    yield name
    for pattern, cases in _NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            yield from (case.format(match[1]) for case in cases)
