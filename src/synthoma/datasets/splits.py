"""Which cases a network learns from and which it is judged on: drawn once by patient, written down, hashed.

All cases of a patient, and of patients that share a scan, stay together. The draw depends on the seed and on
the names of cases and patients, never on their order. It is not stable when patients are added: draw again
under another name, or keep the old split for comparisons.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from synthoma import disk
from synthoma.cases import Case
from synthoma.errors import CaseError, FileError
from synthoma.names import name_of_file
from synthoma.recipe import Recipe
from synthoma.seeds import seed_for

VERSION = 1


class SplitRecipe(Recipe):
    """How to divide a cohort.

    test: share of patients held out of everything. folds: of the rest, each validated on once; with 1, a
    single division with the share `val`. by: keep the mix of an attribute (`hospital`) or of a structure's
    status (`liver_lesion`; needs catalog rows) alike on all sides, of several if separated by commas; cases that lack
    it are a kind of their own. outside: `hospital=c` and the like; patients of whom a case has such an attribute are
    tested on only, as out of distribution.
    val: share of the remaining patients to validate on, with 1 fold.
    """

    test: float = Field(0.0, ge=0, lt=1)
    folds: int = Field(5, ge=1)
    val: float = Field(0.2, gt=0, lt=1)
    by: str = ""
    outside: tuple[str, ...] = ()

    @field_validator("outside")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"[^=]+=.+", one) for one in value):
            raise ValueError("expected attribute=value, such as hospital=c")
        return value


@dataclass(frozen=True)
class Fold:
    """Case ids, sorted."""

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True)
class Splits:
    """Folds and the held-out test cases. patients: case -> patient, for all of them. ood: test cases that are out of
    distribution, of other hospitals for instance; none of `test`."""

    folds: tuple[Fold, ...]
    test: tuple[str, ...] = ()
    patients: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    ood: tuple[str, ...] = ()

    def content(self) -> dict[str, Any]:
        """JSON data, all but the hash."""
        return {
            "version": VERSION,
            "seed": self.seed,
            "recipe": dict(self.recipe),
            "test": list(self.test),
            **({"ood": list(self.ood)} if self.ood else {}),
            "folds": [{"train": list(fold.train), "val": list(fold.val)} for fold in self.folds],
            "patients": dict(sorted(self.patients.items())),
        }

    def table(self) -> list[dict[str, str]]:
        """A row of text for each side: part, cases, patients, examples."""
        parts = [(f"fold {place} {side}", getattr(fold, side)) for place, fold in enumerate(self.folds)
                 for side in ("train", "val")]  # fmt: skip
        parts += [(name, cases) for name, cases in (("test", self.test), ("ood", self.ood)) if cases]
        return [
            {
                "part": name,
                "cases": str(len(cases)),
                "patients": str(len({self.patients.get(case, case) for case in cases})),
                "examples": ", ".join(cases[:4]) + (", ..." if len(cases) > 4 else ""),
            }
            for name, cases in parts
        ]

    def digest(self) -> str:
        """32 hexadecimal digits that differ whenever any case is elsewhere."""
        text = json.dumps(self.content(), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Leak:
    """Two cases that belong together and are not. fold: None where it concerns the test set in every fold."""

    first: str
    second: str
    fold: int | None
    sides: tuple[str, str]
    why: str


def draw_splits(
    cases: Iterable[Case | Mapping[str, Any]],
    recipe: SplitRecipe | None = None,
    seed: int = 0,
    duplicates: Iterable[Sequence[Any]] = (),
) -> Splits:
    """Splits by patient.

    cases: cases, or rows of the catalog. duplicates: pairs of case ids that hold the same scan
    (`find_duplicates`); their patients count as one. Shares are met as closely as whole patients allow.
    Raises `CaseError` if there are fewer patients than sides, or no case has what `by` names.
    """
    recipe = recipe or SplitRecipe()
    patients: dict[str, str] = {}
    kinds: dict[str, str | None] = {}
    strange: set[str] = set()
    for case in cases:
        name, patient, kind, attributes = _member(case, recipe.by)
        if name in patients:
            raise CaseError("two cases of one id", case=name, fix="rename one")
        patients[name], kinds[name] = patient, kind
        if any(str(attributes.get(key)) == value for key, value in (one.split("=", 1) for one in recipe.outside)):
            strange.add(name)
    if recipe.by and set(kinds.values()) <= {None}:
        raise CaseError(f"no case has {recipe.by!r}", expected="an attribute, or with catalog rows a structure")
    groups = _groups(patients, duplicates)
    outside = [group for group in groups if strange & set(groups[group])]
    ood, groups = _cases(groups, outside), {name: groups[name] for name in groups if name not in set(outside)}
    sides = max(2, recipe.folds) + (recipe.test > 0)
    if len(groups) < sides:
        raise CaseError(
            "too few patients to divide",
            found=f"{len(groups)} of {len(patients)} cases",
            expected=f"{sides} or more",
            fix="ask for fewer folds",
        )
    # by kind, then by lot: every n-th of this order is a draw that keeps the mix of kinds
    order = sorted(groups, key=lambda group: (_kind(groups[group], kinds), seed_for(seed, "split", group)))
    test, rest = _take(order, recipe.test)
    if recipe.folds == 1:
        held = [_take(rest, recipe.val)[0]]
    else:
        held = [rest[place :: recipe.folds] for place in range(recipe.folds)]
    folds = tuple(
        Fold(_cases(groups, [group for group in rest if group not in set(val)]), _cases(groups, val)) for val in held
    )
    return Splits(folds, _cases(groups, test), patients, seed, recipe.as_dict(), ood)


def write_splits(splits: Splits, path: Path | str) -> None:
    """The splits as JSON with their hash. Writing the same again does nothing; others are never overwritten."""
    path = Path(path)
    if path.exists():
        there = read_splits(path)
        if there.digest() == splits.digest():
            return
        raise FileError(
            f"{path} holds other splits",
            found=there.digest(),
            expected=splits.digest(),
            fix="results must not change sides: choose another name",
        )
    disk.write_json(path, {"hash": splits.digest(), **splits.content()})


def read_splits(path: Path | str) -> Splits:
    """The splits in a file; `FileError` if it was edited since it was written."""
    data = disk.read_json(path)
    try:
        if data["version"] != VERSION:
            raise FileError(f"{path} is of another version", found=data["version"], expected=VERSION)
        folds = tuple(Fold(tuple(fold["train"]), tuple(fold["val"])) for fold in data["folds"])
        splits = Splits(folds, tuple(data["test"]), data["patients"], data["seed"], data["recipe"],
                        tuple(data.get("ood", ())))  # fmt: skip
        written = data["hash"]
    except (KeyError, TypeError) as error:
        raise FileError(f"{path} holds no splits", found=f"no {error}", fix="draw them again") from error
    if written != splits.digest():
        raise FileError(
            f"{path} was changed after it was drawn",
            found=splits.digest(),
            expected=written,
            fix="restore it, or draw a split of another name",
        )
    return splits


def write_nnunet_splits(splits: Splits, path: Path | str) -> None:
    """nnU-Net's `splits_final.json`; the test cases are left out, as nnU-Net keeps them elsewhere."""
    disk.write_json(path, [{name: list(ids) for name, ids in asdict(fold).items()} for fold in splits.folds])


def read_nnunet_splits(path: Path | str, patients: Mapping[str, str] | None = None) -> Splits:
    """The splits in nnU-Net's `splits_final.json`; every case its own patient unless `patients` tells."""
    data = disk.read_json(path)
    try:
        sides = [[sorted(map(name_of_file, fold[side])) for side in ("train", "val")] for fold in data]
        folds = tuple(Fold(tuple(train), tuple(val)) for train, val in sides)
        known = {case: case for fold in folds for case in fold.train + fold.val}
    except (KeyError, TypeError) as error:
        raise FileError(
            f"{path} is no splits_final.json", found=f"no {error}", expected='[{"train": [...], "val": [...]}]'
        ) from error
    return Splits(folds, patients={case: (patients or {}).get(case, case) for case in sorted(known)})


def read_any_splits(path: Path | str, patients: Mapping[str, str]) -> Splits:
    """Our own splits or nnU-Net's, told from the file, with the patients of the data set that they divide.

    patients: case -> patient. Raises `CaseError` for a case that the data set has not.
    """
    listed = isinstance(disk.read_json(path), list)
    splits = read_nnunet_splits(path) if listed else read_splits(path)
    unknown = sorted(set(splits.patients) - set(patients))
    if unknown:
        raise CaseError(f"{path} divides cases that the data set has not", found=", ".join(unknown[:5]))
    return replace(splits, patients={case: patients[case] for case in splits.patients})


def check_leaks(splits: Splits, duplicates: Iterable[Sequence[Any]] = ()) -> list[Leak]:
    """Pairs of one patient, or of one scan (`find_duplicates`), on different sides; empty if all is well."""
    by_patient: dict[str, list[str]] = {}
    for case, patient in sorted(splits.patients.items()):
        by_patient.setdefault(patient, []).append(case)
    pairs = [(cases[0], case, "one patient") for cases in by_patient.values() for case in cases[1:]]
    pairs += [(pair[0], pair[1], "one scan") for pair in duplicates]
    leaks = []
    held = dict.fromkeys(splits.test, "test") | dict.fromkeys(splits.ood, "ood")
    for first, second, why in pairs:
        if held.get(first) != held.get(second):
            sides = [held.get(case, "train and val") for case in (first, second)]
            leaks.append(Leak(first, second, None, (sides[0], sides[1]), why))
    for index, fold in enumerate(splits.folds):
        side = dict.fromkeys(fold.train, "train") | dict.fromkeys(fold.val, "val")
        for first, second, why in pairs:
            one, other = side.get(first), side.get(second)
            if one and other and one != other:
                leaks.append(Leak(first, second, index, (one, other), why))
    return leaks


def _member(case: Case | Mapping[str, Any], by: str) -> tuple[str, str, str | None, Mapping[str, Any]]:
    """Id, patient, kind, None if not known, and attributes of a case or a catalog row."""
    if isinstance(case, Case):
        row: Mapping[str, Any] = {"id": case.id, "patient": case.patient, "attributes": case.attributes}
    else:
        row = case
    attributes = row["attributes"]
    kinds = [
        attributes.get(name, row.get("structures", {}).get(name, {}).get("status"))
        for name in map(str.strip, by.split(","))
    ]
    known = [str(kind) for kind in kinds if kind is not None]
    return row["id"], row["patient"], ", ".join(known) if known else None, attributes


def _kind(cases: Iterable[str], kinds: Mapping[str, str | None]) -> list[str]:
    return sorted({kinds[case] or "" for case in cases})


def _groups(patients: Mapping[str, str], duplicates: Iterable[Sequence[Any]]) -> dict[str, list[str]]:
    """The first patient's name -> cases, of patients that must stay together."""
    leader = {patient: patient for patient in patients.values()}

    def find(patient: str) -> str:
        while leader[patient] != patient:
            patient = leader[patient]
        return patient

    for pair in duplicates:
        if pair[0] in patients and pair[1] in patients:
            one, other = sorted((find(patients[pair[0]]), find(patients[pair[1]])))
            leader[other] = one
    groups: dict[str, list[str]] = {}
    for case, patient in patients.items():
        groups.setdefault(find(patient), []).append(case)
    return groups


def _take(order: list[str], share: float) -> tuple[list[str], list[str]]:
    """A share of the list, spread evenly over it and at least one if it is above 0, and the others."""
    count = max(round(share * len(order)), 1) if share > 0 else 0
    places = {int((index + 0.5) * len(order) / count) for index in range(count)}
    taken = [group for place, group in enumerate(order) if place in places]
    return taken, [group for place, group in enumerate(order) if place not in places]


def _cases(groups: Mapping[str, list[str]], names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(case for name in names for case in groups[name]))
