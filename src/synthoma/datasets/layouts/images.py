"""Plain folders of scans: `CASE.nii.gz` without masks, `imagesTr/` of an nnU-Net data set, and Slicer's `.seg.nrrd`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from synthoma import files
from synthoma.cases import Case, Source
from synthoma.datasets.labels import segment_sources
from synthoma.datasets.layouts.listing import Listing, case_id, image_stem
from synthoma.errors import LayoutError, SynthomaError

CHANNEL = re.compile(r"(.+)_(\d{4})")


def fits(root: Listing, samples: tuple[Listing, ...]) -> bool:
    """Images, in a folder that is not known to hold masks; or nothing but `imagesTs/`, what `convert` makes of them."""
    if _only_tests(root):
        return True
    return bool(root.images()) and root.path.name not in ("segmentations", "labelsTr", "labelsTs")


def read(root: Listing) -> Iterator[Case | SynthomaError]:
    """Every image of the folder as a case; the masks are those of a `CASE.seg.nrrd` beside it.

    Of a folder of nnU-Net the ids are without the channel: `liver_0` for `liver_0_0000.nii.gz`.
    """
    if _only_tests(root):
        for found in read(root.within("imagesTs")):
            if isinstance(found, Case):
                found = replace(found, dataset=root.path.name, attributes={"split": "test"})
            yield found
        return
    scans: dict[str, str] = {}
    segments: dict[str, str] = {}
    for file, stem in root.images().items():
        (segments if files.suffix_of(file) == files.SEGMENTS_SUFFIX else scans)[file] = stem
    ids = scan_ids(root)
    by_stem = {stem: root.path / file for file, stem in segments.items()}
    for file, stem in scans.items():
        channel = CHANNEL.fullmatch(stem) if ids[file] != stem else None
        if channel and channel[2] != "0000":
            fix = "leave the other channels out"
            yield LayoutError("one CT channel a case", case=ids[file], found=file, expected="_0000", fix=fix)
            continue
        try:
            masks: dict[str, Source] = segment_sources(by_stem.pop(stem)) if stem in by_stem else {}
            yield Case(case_id(ids[file]), root.path / file, masks, dataset=root.path.name)
        except SynthomaError as fault:
            yield fault.of_case(case_id(ids[file]))
    for stem, path in by_stem.items():
        fix = "name both alike, the scan CASE.nrrd"
        yield LayoutError("segments without a scan", case=case_id(stem), found=path.name, fix=fix)
    for name in root.dangling:
        yield LayoutError("a link to nowhere", case=case_id(name), found=str(root.path / name))


def _only_tests(root: Listing) -> bool:
    return "imagesTs" in root.folders and "imagesTr" not in root.folders and not root.images()


def scan_ids(root: Listing) -> dict[str, str]:
    """Image files of a folder -> their names less suffix and, in a folder of nnU-Net, less the channel.

    Such a folder is called `images*` and all its images end in four digits, or all of its two or more images end in
    `_0000`.
    """
    stems = root.images()
    channels = {file: CHANNEL.fullmatch(stem) for file, stem in stems.items()}
    named = root.path.name.startswith("images") and all(channels.values())
    alike = len(stems) > 1 and all(match is not None and match[2] == "0000" for match in channels.values())
    if not (named or alike):
        return stems
    return {file: match[1] if match else image_stem(file) for file, match in channels.items()}
