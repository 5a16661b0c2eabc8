"""Folder conventions: tell which one a folder follows, and read it as cases."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from synthoma.cases import Case
from synthoma.datasets.layouts import chaos, dicom, folders, freetumor, images, ircadb, kits, lits, msd, nnunet
from synthoma.datasets.layouts.listing import Listing, case_id, description, image_stem, list_folder, patients_of
from synthoma.errors import CaseError, FileError, LayoutError, SynthomaError
from synthoma.names import name_of_file, usable_name

SAMPLES = 50  # subfolders looked into to tell a layout


@dataclass(frozen=True, eq=False)
class Dataset:
    """The cases of a folder. Iterates over them; `dataset["liver_0"]` is one.

    faults: what is listed but broken (a label map without a scan, two scans in a case), as errors that name
    the case. others: folders that hold no case of this layout and were passed over. attributes: what the
    layout says about the whole set (nnU-Net: `splits`; PanTS: `metadata`, a path).
    """

    root: Path
    layout: str
    name: str
    cases: tuple[Case, ...]
    faults: tuple[SynthomaError, ...] = ()
    others: tuple[Path, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __len__(self) -> int:
        return len(self.cases)

    def __contains__(self, case: object) -> bool:
        return case in self._by_id if isinstance(case, str) else case in self.cases

    def __getitem__(self, case: str) -> Case:
        """The case of this id; its fault if it is broken, `CaseError` if there is none."""
        if case in self._by_id:
            return self._by_id[case]
        for fault in self.faults:
            if fault.case == case:
                raise fault
        raise CaseError(f"no case {case!r}", found=_first(self._by_id), fix=f"see {self.root}")

    def __repr__(self) -> str:
        faults = f", {len(self.faults)} faults" if self.faults else ""
        return f"<Dataset {self.name}: {len(self)} cases{faults} ({self.layout})>"

    def describe(self) -> dict[str, Any]:
        """What names alone tell: layout, numbers, structures and how many cases have them, faults, folders left out.

        Label maps that must be read to know their structures are not.
        """
        held = Counter(name for case in self for name in (case.masks if isinstance(case.masks, dict) else ()))
        return {
            "folder": str(self.root),
            "layout": self.layout,
            "cases": len(self),
            "patients": len({case.patient for case in self}),
            "structures": dict(sorted(held.items())),
            "faults": [str(fault) for fault in self.faults],
            "passed over": [path.name for path in self.others],
        }

    @cached_property
    def _by_id(self) -> dict[str, Case]:
        return {case.id: case for case in self.cases}


@dataclass(frozen=True)
class CaseFolder:
    """A convention of one folder a case: whether a folder holds one, and how to read it.

    alone: whether the data set's own folder is a case; as `holds` unless told.
    """

    holds: Callable[[Listing], bool]
    read: Callable[[Listing, str], Case]
    alone: Callable[[Listing], bool] | None = None

    def fits(self, root: Listing, samples: tuple[Listing, ...]) -> bool:
        """The root is a case itself, or some of its folders are."""
        return (self.alone or self.holds)(root) or any(self.holds(sample) for sample in samples)

    def read_all(self, root: Listing) -> Iterator[Case | SynthomaError | Path]:
        """Every case below the root; an empty folder is a fault, one with other things a path."""
        if (self.alone or self.holds)(root):
            yield self.read(root, root.path.parent.name)
            return
        for name in root.folders:
            try:
                listing = list_folder(root.path / name)
                if self.holds(listing):
                    yield self.read(listing, root.path.name)
                elif listing.empty:
                    yield LayoutError("the case's folder is empty", case=case_id(name), fix="fetch it again")
                else:
                    yield listing.path
            except SynthomaError as fault:
                yield fault.of_case(case_id(name))
        for name in root.dangling:
            yield LayoutError("a link to nowhere", case=case_id(name), found=str(root.path / name))


@dataclass(frozen=True)
class Layout:
    """A convention. looks: what tells it, in words. fits: root and samples of its folders -> whether it is."""

    looks: str
    fits: Callable[[Listing, tuple[Listing, ...]], bool]
    read: Callable[[Listing], Iterator[Case | SynthomaError | Path]]
    attributes: Callable[[Listing], dict[str, Any]] = lambda root: {}


def _nnunet_attributes(root: Listing) -> dict[str, Any]:
    folds = nnunet.splits(root)
    return {} if folds is None else {"splits": folds}


def _pants_attributes(root: Listing) -> dict[str, Any]:
    return {"metadata": root.path / "metadata.xlsx"} if "metadata.xlsx" in root.files else {}


CASE_FOLDERS = {
    "abdomenatlas": CaseFolder(folders.holds_case, folders.read),
    "kits": CaseFolder(kits.holds_case, kits.read),
    "ircadb": CaseFolder(ircadb.holds_case, ircadb.read),
    "chaos": CaseFolder(chaos.holds_case, chaos.read),
    "dicom": CaseFolder(dicom.holds_case, dicom.read, Listing.has_dicom),
}


def _case_layout(name: str, looks: str) -> Layout:
    kind = CASE_FOLDERS[name]
    return Layout(looks, kind.fits, kind.read_all)


def _tree_layout(name: str, looks: str, attributes: Callable[[Listing], dict[str, Any]]) -> Layout:
    return Layout(looks, partial(folders.tree_fits, name), partial(folders.read_trees, name), attributes)


# In this order: the first that fits is taken.
LAYOUTS = {
    "nnunet": Layout("dataset.json with channel_names", nnunet.fits, nnunet.read, _nnunet_attributes),
    "msd": Layout("dataset.json with training", msd.fits, msd.read),
    "abdomenatlas2": _tree_layout("abdomenatlas2", "ct/CASE/ct.nii.gz and label/CASE/", lambda root: {}),
    "pants": _tree_layout("pants", "ImageTr/CASE/ct.nii.gz and LabelTr/CASE/", _pants_attributes),
    "lits": Layout("volume-N.nii and segmentation-N.nii", lits.fits, lits.read),
    "abdomenatlas": _case_layout("abdomenatlas", "CASE/ct.nii.gz and CASE/segmentations/"),
    "kits": _case_layout("kits", "CASE/imaging.nii.gz and CASE/segmentation.nii.gz"),
    "ircadb": _case_layout("ircadb", "CASE/PATIENT_DICOM/ and CASE/MASKS_DICOM/"),
    "chaos": _case_layout("chaos", "CASE/DICOM_anon/ and CASE/Ground/"),
    "dicom": _case_layout("dicom", "CASE/*.dcm"),
    "images": Layout("CASE.nii.gz", images.fits, images.read),
    "freetumor": Layout("imagesTr/ and labelsTr/; only if named", freetumor.fits, freetumor.read),
}
# Those that `datasets.conversion` writes.
WRITABLE = ("abdomenatlas", "dicom", "dicom-seg", "msd", "nnunet")


def detect(root: Path | str) -> str:
    """The name of the layout a folder follows; `LayoutError` with what was looked for, and found, if none."""
    return _detect(_list_root(_absolute(root)))


def open_dataset(root: Path | str, layout: str | None = None) -> Dataset:
    """The cases of a folder in any known layout; lists files and `dataset.json`, opens no image.

    root: a folder, or the name of one under `$nnUNet_raw`; `LAYOUT:FOLDER` says the layout too (`freetumor:DIR`).
    layout: its name, told from the folder unless given. Broken cases become `faults`, of which two cases of one id
    are one. The patient is the case's id unless `case.json` names one; the other conventions tell no more. Raises
    `LayoutError` if the folder follows no layout or holds nothing of it.
    """
    told, separator, rest = str(root).partition(":")
    if separator and told in LAYOUTS and not Path(root).exists():
        layout, root = layout or told, rest
    listing = _list_root(_absolute(nnunet.under_raw(Path(root))))
    if layout is not None and layout not in LAYOUTS:
        raise LayoutError(f"unknown layout {layout!r}", expected=f"one of {', '.join(LAYOUTS)}")
    name = layout or _detect(listing)
    cases: dict[str, Case] = {}
    faults, others = [], []
    for found in LAYOUTS[name].read(listing):
        if isinstance(found, Path):
            others.append(found)
        elif isinstance(found, SynthomaError):
            faults.append(found)
        elif found.id in cases:
            both = f"{cases[found.id].image} and {found.image}"
            faults.append(LayoutError("two cases of one id", case=found.id, found=both, fix="rename one"))
        else:
            cases[found.id] = found
    if not cases and not faults:
        raise LayoutError(f"{root} holds no case", found=listing.summary(), expected=f"{name}: {LAYOUTS[name].looks}")
    attributes = LAYOUTS[name].attributes(listing)
    patients = patients_of(description(listing)) if name in ("nnunet", "msd") else {}
    for case in patients.keys() & cases.keys():
        cases[case] = replace(cases[case], patient=patients[case])
    for one in list(cases.values()):
        was = _name_before(one, listing.path)
        if was:
            cases[one.id] = replace(one, attributes={**one.attributes, "renamed_from": was})
    return Dataset(
        listing.path, name, listing.path.name, tuple(cases.values()), tuple(faults), tuple(others), attributes
    )


def _name_before(case: Case, root: Path) -> str:
    """What a case's folder or file is called, where no plain name holds that; in ASCII. Empty for all others."""
    parts = case.image.parts[len(root.parts) :] if isinstance(case.image, Path) else ()
    for part in parts:
        stem = name_of_file(image_stem(part) or part)
        if usable_name(stem) == case.id != unicodedata.normalize("NFC", stem):
            return ascii(stem)
    return ""


def read_case(path: Path | str) -> Case:
    """One case: its folder, its scan, or the data set's folder and the case's id (`Task03_Liver/liver_0`).

    Voxels are read when asked for. Raises `LayoutError` if no case can be found there.
    """
    path = _absolute(path)
    if path.is_dir():
        listing = list_folder(path)
        home = path.parent
        if folders.labels_beside(listing) is not None:
            home = home.parent
        for kind in CASE_FOLDERS.values():
            if kind.holds(listing):
                return kind.read(listing, home.name)
        with contextlib.suppress(LayoutError):
            for first in open_dataset(path):
                fix = f"give one of them: {path / first.id}"
                raise CaseError(f"{path} is a data set", expected="a case", fix=fix)
        raise LayoutError(f"{path} holds no case", found=listing.summary(), expected=_looked_for(CASE_FOLDERS))
    if not path.is_file():
        try:
            beside = open_dataset(path.parent)
        except LayoutError as error:
            expected = "a case's folder, its scan, or DATASET/CASE"
            raise LayoutError(f"no file or folder {path}", expected=expected) from error
        return beside[name_of_file(path.name)]
    if folders.holds_case(list_folder(path.parent)):
        return read_case(path.parent)
    root = path.parent.parent if path.parent.name in ("imagesTr", "imagesTs") else path.parent
    for case in open_dataset(root):
        if case.image == path:
            return case
    raise LayoutError(f"{path} is the scan of no case", fix="give the case's folder, or its scan")


def _absolute(path: Path | str) -> Path:
    """The path from the root of the disk, links kept: a worker may run in another folder."""
    return Path(os.path.abspath(path))


def _list_root(root: Path) -> Listing:
    if not root.is_dir():
        kind = "a file" if root.is_file() else "a link to nowhere" if root.is_symlink() else "nothing"
        fix = "give the folder, or use read_case" if root.is_file() else "a bare name is looked up in $nnUNet_raw"
        raise LayoutError(f"no folder {root}", found=kind, fix=fix)
    listing = list_folder(root)
    if listing.empty:
        raise LayoutError(f"{root} is empty", expected=_looked_for(LAYOUTS))
    return listing


def _detect(root: Listing) -> str:
    name = _fitting(root)
    if name is not None:
        return name
    raise LayoutError(
        f"{root.path} follows no known layout", found=root.summary(), expected=_looked_for(LAYOUTS), fix=_hint(root)
    )


def _fitting(root: Listing) -> str | None:
    samples = []
    for name in root.folders[:SAMPLES]:
        with contextlib.suppress(FileError):  # a locked folder tells nothing here; reading makes it a fault
            samples.append(list_folder(root.path / name))
    return next((name for name, layout in LAYOUTS.items() if layout.fits(root, tuple(samples))), None)


def _hint(root: Listing) -> str:
    """Where a data set might be, one level further down, or what lacks to be one."""
    if {"imagesTr", "labelsTr"}.issubset(root.folders):
        return f"dataset.json is missing; for FreeTumor's label maps give freetumor:{root.path}"
    for name in root.folders[:SAMPLES]:
        with contextlib.suppress(SynthomaError):  # a hint is worth no second error
            listing = list_folder(root.path / name)
            layout = None if listing.empty else _fitting(listing)
            if layout is not None:
                return f"did you mean {listing.path} ({layout})?"
    return "give the folder that holds the cases"


def _looked_for(names: Mapping[str, object]) -> str:
    return "; ".join(f"{name}: {LAYOUTS[name].looks}" for name in names)


def _first(names: Mapping[str, object], limit: int = 5) -> str:
    shown = ", ".join(list(names)[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown or "none"
