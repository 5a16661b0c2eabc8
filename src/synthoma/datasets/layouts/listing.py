"""What lies in a folder: one look at the disk for each folder, and no image opened."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from synthoma import disk, files, names
from synthoma.errors import FileError, LayoutError

log = logging.getLogger(__name__)

DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")


@dataclass(frozen=True)
class Listing:
    """The entries of one folder in natural order (`case_2` before `case_10`).

    Hidden names (`.git`, `._ct.nii.gz`, half-written files of ours) and what other systems leave (`Thumbs.db`,
    `__MACOSX`) are left out. dangling: links that lead nowhere, or round in circles.
    """

    path: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]
    dangling: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.files or self.folders or self.dangling)

    def images(self) -> dict[str, str]:
        """Image files -> their names less the suffix (`liver.nii.gz` -> `liver`)."""
        return {name: stem for name in self.files if (stem := image_stem(name))}

    def within(self, folder: str) -> Listing:
        """The listing of a folder of this one; an empty listing if there is no such folder."""
        path = self.path / folder
        return list_folder(path) if folder in self.folders else Listing(path, (), ())

    def has_dicom(self) -> bool:
        """Whether DICOM files lie here: by suffix, else by the mark in one of the first files without one."""
        if any(name.lower().endswith(DICOM_SUFFIXES) for name in self.files):
            return True
        plain = [name for name in self.files if "." not in name or name[-1].isdecimal()]
        try:
            return any(_is_dicom(self.path / name) for name in plain[:5])
        except OSError as error:
            raise FileError(f"cannot read {error.filename}", found=error.strerror) from error

    def summary(self, limit: int = 5) -> str:
        """The first few entries, in words."""
        entries = [*(f"{name}/" for name in self.folders), *self.files]
        entries += [f"{name} (a link to nowhere)" for name in self.dangling]
        more = f" and {len(entries) - limit} more" if len(entries) > limit else ""
        return ", ".join(entries[:limit]) + more if entries else "nothing"


def list_folder(path: Path) -> Listing:
    """The entries of a folder, links followed; `FileError` if it cannot be listed, or a name in it is no Unicode."""
    found: dict[str, list[str]] = {"files": [], "folders": [], "dangling": []}
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not names.is_junk(entry.name):
                    found[_kind(entry)].append(entry.name)
    except OSError as error:
        raise FileError(f"cannot list {path}", found=error.strerror or str(error)) from error
    for name in ("", *(name for kind in found.values() for name in kind)):
        names.require_unicode(os.path.join(path, name))
    return Listing(path, *(tuple(sorted(kind, key=natural)) for kind in found.values()))


def description(root: Listing) -> dict[str, Any]:
    """What `dataset.json` says; empty if there is none, an error if it is no table."""
    if "dataset.json" not in root.files:
        return {}
    declared = disk.read_json(root.path / "dataset.json")
    if not isinstance(declared, dict):
        raise LayoutError(f"{root.path / 'dataset.json'} is no table", found=type(declared).__name__)
    return declared


def patients_of(declared: Mapping[str, Any]) -> dict[str, str]:
    """Case -> patient, where a `dataset.json` tells it (ours do, under `patients`)."""
    told = declared.get("patients")
    if not isinstance(told, dict):
        return {}
    return {case_id(name): patient for name, patient in told.items() if isinstance(patient, str)}


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _kind(entry: os.DirEntry[str]) -> str:
    """Only links cost another look at the disk."""
    try:
        if entry.is_dir():
            return "folders"
        return "files" if entry.is_file() else "dangling"
    except OSError:  # a loop of links
        return "dangling"


@lru_cache(4096)  # the same mask names come thousands of times
def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sorting key by which `case_2` comes before `case_10`."""
    return tuple((1, int(part), part) if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", name))


@lru_cache(4096)
def image_stem(name: str) -> str:
    """A file's name without its image suffix; empty if it has none."""
    suffix = files.suffix_of(name)
    return name[: -len(suffix)] if suffix else ""


def case_id(name: str) -> str:
    """The id of a case whose folder or file is called so: the same letters, unless no plain name holds them.

    A changed name is said once, in the log.
    """
    plain = names.usable_name(names.name_of_file(name))
    if plain != unicodedata.normalize("NFC", names.name_of_file(name)):
        _say_renamed(name, plain)
    return plain


@lru_cache(4096)
def _say_renamed(name: str, plain: str) -> None:
    log.warning("%r cannot be the name of a case: it is called %r", name, plain)


def relative_path(text: str) -> PurePosixPath:
    """A path that a file names, written on any system."""
    return PurePosixPath(text.replace("\\", "/"))


class Shelf:
    """The files below a root, asked for by relative path; every folder is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[str, Listing] = {}

    def find(self, relative: object, case: str | None = None, channel: str = "") -> Path:
        """The path of a file that `dataset.json` names, with / or \\ between folders.

        channel: looked for at the end of the name if there is no file without it, as the first nnU-Net lists scans.

        Raises `LayoutError` if that is no relative path, leads out of the root, or is not there.
        """
        if not isinstance(relative, str) or not relative.strip():
            raise LayoutError("dataset.json names no file", case=case, found=repr(relative), expected="a path")
        path = relative_path(relative)
        if path.is_absolute() or ".." in path.parts:
            raise LayoutError("dataset.json leads out of its folder", case=case, found=relative)
        listing = self.listing(str(path.parent))
        if path.name not in listing.files and channel:
            stem = image_stem(path.name)
            first = f"{stem}{channel}{path.name[len(stem) :]}"
            path = path.with_name(first) if first in listing.files else path
        if path.name not in listing.files:
            raise LayoutError(
                "dataset.json names a file that is not there",
                case=case,
                found="a link to nowhere" if path.name in listing.dangling else None,
                expected=str(self.root / path),
                fix="fetch the file, or take the case out of dataset.json",
            )
        return self.root / path

    def listing(self, folder: str) -> Listing:
        """The listing of a folder below the root; empty if there is none."""
        if folder not in self._listings:
            path = self.root / folder
            self._listings[folder] = list_folder(path) if path.is_dir() else Listing(path, (), ())
        return self._listings[folder]
