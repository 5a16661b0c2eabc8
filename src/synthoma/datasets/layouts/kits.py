"""KiTS19, 21 and 23: `case_00000/{imaging.nii.gz, segmentation.nii.gz}`, 1 kidney, 2 tumor, 3 cyst."""

from __future__ import annotations

from synthoma.cases import Case
from synthoma.datasets.labels import PresentLabels, label_sources, with_tumors
from synthoma.datasets.layouts.listing import Listing, case_id
from synthoma.errors import LayoutError

KITS = {"kidney": (1,), "kidney_lesion": (2,), "kidney_cyst": (3,)}


def holds_case(listing: Listing) -> bool:
    """Whether a folder is a KiTS case, whole or broken."""
    stems = listing.images().values()
    return "imaging" in stems or any(stem in ("segmentation", "aggregated_MAJ_seg") for stem in stems)


def read(listing: Listing, dataset: str) -> Case:
    """1 kidney (both, with tumors and cysts), 2 tumor, 3 cyst; a case without label map has no masks.

    KiTS21 and 23, told by their `segmentations/` or `instances/`, annotate cysts; elsewhere a cyst counts as
    annotated only where there is one, for which the label map is read when the masks are first asked for.
    """
    name = case_id(listing.path.name)
    by_stem = {stem: listing.path / file for file, stem in listing.images().items()}
    if "imaging" not in by_stem:
        raise LayoutError(
            "the case has no scan",
            case=name,
            found=listing.summary(),
            expected="imaging.nii.gz",
            fix="KiTS hands out scans apart from its masks; run its own download script",
        )
    path = by_stem.get("segmentation") or by_stem.get("aggregated_MAJ_seg")
    if path is None:
        return Case(name, by_stem["imaging"], {}, dataset=dataset)
    if {"segmentations", "instances"}.intersection(listing.folders):
        return Case(name, by_stem["imaging"], label_sources(path, with_tumors(KITS)), dataset=dataset)
    masks = PresentLabels(path, KITS, certain=frozenset({"kidney", "kidney_lesion"}))
    return Case(name, by_stem["imaging"], masks, dataset=dataset)
