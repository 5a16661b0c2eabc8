"""Label schemes: what the values of a pipeline's label map mean, and which value a new tumor gets."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma import anatomy
from synthoma.datasets.labels import structure_names, used_values, with_tumors
from synthoma.errors import CaseError, RecipeError, listed
from synthoma.volume import Array, Geometry, Volume

Labels = Mapping[str, int | Sequence[int]]
ANY_LESION = "any_lesion"  # tumors of which the label map does not say in which organ they grow
_LOOK = '{"liver": 1, "liver_tumor": 2}; regions as {"liver": [1, 2], "liver_tumor": 2}'
_LARGEST = 2**16 - 1


@dataclass(frozen=True)
class LabelScheme:
    """What the values of a label map mean. Made by `label_scheme`.

    structures: structure, in our spelling -> its values; an organ holds its own tumors. tumors: organ -> the value that
    the voxels of its new tumors get. values: all that have a meaning, 0 for background among them.
    """

    structures: Mapping[str, tuple[int, ...]]
    tumors: Mapping[str, int]
    values: frozenset[int]

    @property
    def organs(self) -> tuple[str, ...]:
        """The organs that the label map shows."""
        return tuple(
            organ.name for organ in anatomy.ORGANS.values() if any(name in self.structures for name in organ.structures)
        )

    def read(self, labels: Array, case: str = "") -> NDArray[Any]:
        """The label map as uint8 or uint16, of any whole-numbered type, also float as MONAI loads it.

        Raises `CaseError` for values that have no meaning, among them fractions, which interpolation leaves, and for a
        type that cannot hold the value of a new tumor.
        """
        kind = labels.dtype
        most = 1 if kind.kind == "b" else np.iinfo(kind).max if kind.kind in "iu" else _LARGEST
        if any(value > most for value in self.tumors.values()):
            raise CaseError(
                "the label map's type cannot hold a tumor's value", case=case or None, found=str(kind),
                expected=f"one that holds {max(self.tumors.values())}",
            )  # fmt: skip
        whole = labels
        if labels.dtype.kind != "u":
            with np.errstate(invalid="ignore"):
                whole = labels.astype(np.uint8 if max(self.values) < 2**8 else np.uint16)
            if not np.array_equal(whole, labels):
                self._refuse(np.unique(labels).tolist(), case)
        elif labels.dtype.itemsize > 2:
            whole = np.minimum(labels, _LARGEST).astype(np.uint16)
        if strange := [value for value in used_values(whole) if value not in self.values]:
            self._refuse(strange, case)
        return whole

    def masks(self, labels: NDArray[Any], geometry: Geometry, organs: Iterable[str] = ()) -> dict[str, Volume]:
        """The structures that have voxels in a label map as `read` gives it, as bool masks.

        organs: all their parts are there too, empty where they have no voxels.
        """
        present = set(used_values(labels))
        kept = {name for organ in organs for name in anatomy.organ(organ).structures}
        table = np.zeros(_LARGEST + 1, bool)
        found = {}
        for name, own in self.structures.items():
            if name in kept or present.intersection(own):
                table[:] = False
                table[list(own)] = True
                mask = labels == own[0] if len(own) == 1 else table[labels]
                found[name] = Volume(np.asfortranarray(mask), geometry)
        return found

    def _refuse(self, values: Sequence[float], case: str) -> None:
        strange = [value for value in values if value not in self.values]
        if any(value != round(value) for value in strange if value == value) or any(v != v for v in strange):
            raise CaseError(
                "the label map holds values that are no labels",
                case=case or None,
                found=listed([f"{value:g}" for value in strange]),
                expected="whole numbers",
                fix="resample label maps with mode nearest; lazy MONAI pipelines want it a second time: "
                'Compose(..., overrides={"label": {"mode": "nearest"}})',
            )
        raise CaseError(
            "the label map holds values that the label scheme does not know",
            case=case or None,
            found=listed([f"{value:g}" for value in strange]),
            expected=f"0 for background, {self}",
            fix='name them in the labels, structures that nobody asks for too: {"other": 7}',
        )

    def __str__(self) -> str:
        return ", ".join(f"{name} {'+'.join(map(str, own))}" for name, own in self.structures.items())


def label_scheme(labels: Labels | Path | str | LabelScheme, name: str = "") -> LabelScheme:
    """The scheme of a mapping, name of the structure -> its value or values; or of a TOML file that holds one.

    Names are read as in data sets: `liver`, `liver_tumor`, `hepatic tumors`, `kidney_left`; a bare `tumor` is that of
    the only organ, or of every organ if there are several. A structure may have several values, and a value several
    structures, as the regions of nnU-Net have (`"liver": [1, 2], "liver_tumor": 2`). A new tumor gets the first value
    of its structure. `background` may be left out. `ignore` marks voxels that nobody annotated: no tumor goes there.
    name: of the data set, which may tell whose tumor a bare `tumor` is.

    Raises `RecipeError` for what is no such mapping, `LayoutError` for two names of one structure.
    """
    if isinstance(labels, LabelScheme):
        return labels
    table = _read(labels) if isinstance(labels, Path | str) else labels
    regions = _regions(table)
    ours = structure_names(regions, name)
    named = {ours[label]: own for label, own in regions.items()}
    bare = [word for word in named if word in anatomy.TUMOR_WORDS]
    for word in bare:
        named[ANY_LESION] = named.pop(word)
    background = {value for label, own in _lists(table).items() if label == "background" for value in own}
    shown = {organ.name for organ in anatomy.ORGANS.values() if any(part in named for part in organ.structures)}
    tumors = {}
    for organ in anatomy.ORGANS.values():
        anyone = named.get(ANY_LESION) if organ.name in shown or not shown else None
        if own := named.get(organ.lesion) or anyone:
            tumors[organ.name] = own[0]
    values = {0, *background, *(value for own in regions.values() for value in own)}
    return LabelScheme(with_tumors(named), tumors, frozenset(values))


def _regions(table: Labels) -> dict[str, tuple[int, ...]]:
    """Each label with its values, without the background; `RecipeError` for other things."""
    regions = {label: own for label, own in _lists(table).items() if label != "background" and own != (0,)}
    if not regions:
        raise RecipeError("the labels name no structure", found=dict(table), expected=_LOOK)
    return regions


def _lists(table: Labels) -> dict[str, tuple[int, ...]]:
    fault = RecipeError("the labels cannot be read", found=table, expected=_LOOK)
    if not isinstance(table, Mapping):
        raise fault
    found = {}
    for label, own in table.items():
        several = isinstance(own, Sequence) and not isinstance(own, str)
        values = tuple(own) if several else (own,)  # type: ignore[arg-type]
        whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
        if not values or not whole or not all(0 <= value <= _LARGEST for value in values):  # type: ignore[operator]
            raise fault
        found[str(label)] = values
    return found  # type: ignore[return-value]


def _read(path: Path | str) -> Labels:
    try:
        table: Labels = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"cannot read the labels in {path}", found=error.strerror, expected=_LOOK) from error
    except ValueError as error:
        raise RecipeError(f"{path} is not TOML", found=str(error), expected="lines as liver = 1") from error
    return table
