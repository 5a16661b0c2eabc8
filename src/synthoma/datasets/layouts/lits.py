"""LiTS: `volume-N.nii` beside `segmentation-N.nii`, 1 liver, 2 tumor; `test-volume-N.nii` without."""

from __future__ import annotations

import re
from collections.abc import Iterator

from synthoma.cases import Case
from synthoma.datasets.labels import label_sources, with_tumors
from synthoma.datasets.layouts.listing import Listing, case_id
from synthoma.errors import LayoutError, SynthomaError

LITS = {"liver": (1,), "liver_lesion": (2,)}


def fits(root: Listing, samples: tuple[Listing, ...]) -> bool:
    """Files named `volume-N`."""
    return any(re.fullmatch(r"(test-)?volume-\d+", stem) for stem in root.images().values())


def read(root: Listing) -> Iterator[Case | SynthomaError]:
    """Pairs `volume-N`, `segmentation-N`; `test-volume-N` and volumes without a twin have no masks."""
    by_stem: dict[str, list[str]] = {}
    for file, stem in root.images().items():
        by_stem.setdefault(stem, []).append(file)
    values = with_tumors(LITS)
    for stem, names in by_stem.items():
        kind, _, number = stem.rpartition("-")
        if len(names) > 1:
            yield LayoutError("one file twice", case=case_id(stem), found=" and ".join(names), expected="one")
        elif kind == "segmentation" and f"volume-{number}" not in by_stem:
            yield LayoutError("a label map without a scan", case=f"volume-{number}", found=names[0])
        elif kind in ("volume", "test-volume"):
            twin = by_stem.get(f"segmentation-{number}", []) if kind == "volume" else []
            masks = label_sources(root.path / twin[0], values) if twin else {}
            split = {"split": "test"} if kind == "test-volume" else {}
            yield Case(case_id(stem), root.path / names[0], masks, dataset=root.path.name, attributes=split)
