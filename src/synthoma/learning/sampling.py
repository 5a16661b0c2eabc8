"""Where training patches are centered: on tumors of every size, on every organ, on false alarms, and anywhere."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, Protocol, TypeVar

import numpy as np

from synthoma import anatomy
from synthoma.cases import Lesion
from synthoma.errors import CaseError
from synthoma.learning.entry import Entry
from synthoma.learning.negatives import Negative
from synthoma.volume import Array, triple

SIZES_MM = (10.0, 20.0, 50.0)  # the classes between which tumors are balanced: those of the evaluation
_TRIES = 16  # hosts asked for a tumor before a patch is centered on an organ instead
_GOLDEN = 0.6180339887498949
# the way out where synthetic tumors have no case to go into
NO_HOST = (
    "train on the tumors that are there (--set synthesis=none), let tumor-bearing cases host as well"
    " (--set patches.hosts=all), or say which cases are healthy"
)

Kind = Literal["lesion", "organ", "negative", "anywhere"]
T = TypeVar("T")


class SyntheticTumor(Protocol):
    """A synthetic tumor, as far as placing patches goes. reach_mm: no voxel further from the center changes."""

    @property
    def organ(self) -> str: ...
    @property
    def center_mm(self) -> tuple[float, float, float]: ...
    @property
    def equivalent_diameter_mm(self) -> float: ...
    @property
    def reach_mm(self) -> float: ...


@dataclass(frozen=True)
class PatchCenter:
    """The voxel that a patch is to hold, in which entry, and the synthetic tumors of that entry in this epoch."""

    entry: int
    center: tuple[int, int, int]
    drawn: tuple[SyntheticTumor, ...] = ()


@dataclass(frozen=True)
class Balance:
    """How often what is centered on; the keys of `PatchRecipe`."""

    lesion_share: float
    organ_share: float
    negative_share: float
    size_balance: float
    synthetic_share: float
    organ_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Pool:
    """Some of the entries, by what can be centered on in them.

    lesions: organ -> size class -> entry -> its real tumors. organs: organ -> entries that show it.
    """

    entries: Array
    lesions: dict[str, dict[int, dict[int, list[Lesion]]]]
    organs: dict[str, Array]


@dataclass(frozen=True, eq=False)
class Places:
    """All there is to center on. plain: the cases shown as they are; hosts: those that get synthetic tumors.

    hosting: organ -> the hosts that can have its synthetic tumors, for the organs whose tumors are to be learned.
    negatives: organ -> entry and voxel of each false alarm. weights: of the entries, when one is chosen.
    """

    plain: Pool
    hosts: Pool
    hosting: dict[str, Array]
    negatives: dict[str, list[tuple[int, tuple[int, int, int]]]]
    weights: Array


def find_all(
    entries: Sequence[Entry],
    classes: Sequence[str],
    synthesis: bool = False,
    hosts: str = "healthy",
    weights: Mapping[str, float] | None = None,
    negatives: Sequence[Negative] = (),
) -> Places:
    """What there is in the entries for these classes.

    synthesis: whether tumors are put in. A case can host them if it shows an organ whose tumors are a class and
    are annotated there (or it is known to have none); with hosts `healthy` only one without real tumors, which is
    then never shown as plain; with `all` one with real tumors is both. weights: of data sets or cases, 1 unless
    given. negatives: false alarms; those of other cases and classes are left out. Raises `CaseError` for no entries, if
    tumors are to be put in but no case can host them, and if there are negatives but none of them is in these entries.
    """
    if not entries:
        raise CaseError("there is no case to train on")
    organs = [name for name in classes if not anatomy.is_lesion(name)]
    tumor_organs = [name.removesuffix("_lesion") for name in classes if anatomy.is_lesion(name)]
    asked = list(dict.fromkeys([*organs, *tumor_organs]))
    able = [n for n, entry in enumerate(entries) if synthesis and _can_host(entry, tumor_organs, hosts)]
    if synthesis and not able:
        raise CaseError(
            "no case can host synthetic tumors",
            found=f"{len(entries)} cases, of which {sum(bool(entry.lesions) for entry in entries)} have real tumors",
            expected=f"one without real tumors that shows {' or '.join(tumor_organs) or 'an organ with a tumor class'}",
            fix=NO_HOST,
        )
    chosen = set(able)
    plain = [n for n, entry in enumerate(entries) if n not in chosen or entry.lesions]
    known = weights or {}
    each = np.array([known.get(entry.case, known.get(entry.dataset, 1.0)) for entry in entries])
    hosting = {organ: np.array([n for n in able if _hosts_organ(entries[n], organ)], int) for organ in tumor_organs}
    return Places(
        plain=_pool(entries, plain, asked, tumor_organs),
        hosts=_pool(entries, able, asked, tumor_organs),
        hosting={organ: there for organ, there in hosting.items() if there.size},
        negatives=_negatives(entries, negatives, tumor_organs),
        weights=each,
    )


def choose(
    places: Places,
    entries: Sequence[Entry],
    balance: Balance,
    draw: Callable[[Entry], Sequence[SyntheticTumor]],
    turn: float,
    rng: np.random.Generator,
) -> PatchCenter:
    """One place. turn: in [0, 1), decides between lesion, organ, negative and anywhere.

    An organ is chosen by its weight, evenly where there are none. Of its tumors: a size class (more evenly than there
    are tumors in it by `size_balance`), a case by its weight, a tumor evenly. Of its false alarms: one evenly, in its
    case as it is. Without a tumor or a false alarm to be had it is an organ, without an organ anywhere in the body.
    """
    kind = _kind(balance, turn)
    if kind == "negative" and places.negatives:
        entry, center = _one(places.negatives[_organ(places.negatives, balance, rng)], rng)
        return PatchCenter(entry, center)
    share = balance.synthetic_share if places.plain.entries.size else 1.0
    hosting = places.hosts.entries.size > 0 and rng.random() < share
    pool = places.hosts if hosting else places.plain
    if kind == "lesion":
        site = _on_drawn(places, entries, balance, draw, rng) if hosting else _on_real(places, entries, balance, rng)
        if site is not None:
            return site
    if kind != "anywhere" and pool.organs:
        organ = _organ(pool.organs, balance, rng)
        entry, place = _case(pool.organs[organ], places, rng), organ
    else:
        entry, place = _case(pool.entries, places, rng), "body"
    drawn = tuple(draw(entries[entry])) if hosting else ()
    return PatchCenter(entry, _voxel(entries[entry], place, rng), drawn)


def turn_of(index: int, offset: float) -> float:
    """A number in [0, 1) for every patch, so even that any few in a row hold the kinds in their shares."""
    return (offset + index * _GOLDEN) % 1.0


def size_class(diameter_mm: float) -> int:
    """0 for < 10 mm, 1 for 10-20, 2 for 20-50, 3 for more."""
    return bisect_right(SIZES_MM, diameter_mm)


def _kind(balance: Balance, turn: float) -> Kind:
    if turn < balance.lesion_share:
        return "lesion"
    # negatives come last, so that a recipe without them has the patches it always had
    if turn < balance.lesion_share + balance.organ_share:
        return "organ"
    return "negative" if turn >= 1 - balance.negative_share else "anywhere"


def _can_host(entry: Entry, tumor_organs: Sequence[str], hosts: str) -> bool:
    if hosts == "healthy" and entry.lesions:
        return False
    return any(_hosts_organ(entry, organ) for organ in tumor_organs)


def _hosts_organ(entry: Entry, organ: str) -> bool:
    return _shows(entry, organ) and entry.annotates(anatomy.organ(organ).lesion)


def _shows(entry: Entry, organ: str) -> bool:
    start, stop = entry.spans.get(organ, (0, 0))
    return stop > start


def _pool(entries: Sequence[Entry], chosen: Sequence[int], organs: Sequence[str], tumor_organs: Sequence[str]) -> Pool:
    lesions: dict[str, dict[int, dict[int, list[Lesion]]]] = {}
    for n in chosen:
        for lesion in entries[n].lesions:
            if lesion.organ in tumor_organs:
                by_size = lesions.setdefault(lesion.organ, {}).setdefault(size_class(lesion.equivalent_diameter_mm), {})
                by_size.setdefault(n, []).append(lesion)
    shown = {organ: np.array([n for n in chosen if _shows(entries[n], organ)], int) for organ in organs}
    return Pool(np.array(chosen, int), lesions, {organ: there for organ, there in shown.items() if there.size})


def _negatives(
    entries: Sequence[Entry], negatives: Sequence[Negative], tumor_organs: Sequence[str]
) -> dict[str, list[tuple[int, tuple[int, int, int]]]]:
    number = {entry.case: n for n, entry in enumerate(entries)}
    found: dict[str, list[tuple[int, tuple[int, int, int]]]] = {}
    for negative in negatives:
        if negative.case in number and negative.organ in tumor_organs:
            n = number[negative.case]
            grid = entries[n].geometry
            center = np.clip(np.rint(grid.to_ijk(negative.center_mm)).astype(int), 0, np.asarray(grid.shape) - 1)
            found.setdefault(negative.organ, []).append((n, triple(center)))
    if negatives and not found:
        raise CaseError(
            "none of the false alarms to learn from lies in a case of this training",
            found=f"{len(negatives)} in {', '.join(sorted({negative.case for negative in negatives})[:3])}, ...",
            fix="make the file from cases that are trained on (synthoma negatives)",
        )
    return found


def _on_real(
    places: Places, entries: Sequence[Entry], balance: Balance, rng: np.random.Generator
) -> PatchCenter | None:
    lesions = places.plain.lesions
    if not lesions:
        return None
    by_size = lesions[_organ(lesions, balance, rng)]
    sizes = sorted(by_size)
    size = _weighted(sizes, [sum(map(len, by_size[size].values())) for size in sizes], balance, rng)
    entry = _case(list(by_size[size]), places, rng)
    lesion = _one(by_size[size][entry], rng)
    place = f"{anatomy.organ(lesion.organ).lesion} {lesion.index}"
    return PatchCenter(entry, _voxel(entries[entry], place, rng))


def _on_drawn(
    places: Places,
    entries: Sequence[Entry],
    balance: Balance,
    draw: Callable[[Entry], Sequence[SyntheticTumor]],
    rng: np.random.Generator,
) -> PatchCenter | None:
    # the organ first: one that few cases show has its share all the same
    organ = _organ(places.hosting, balance, rng)
    for _ in range(_TRIES):
        n = _case(places.hosting[organ], places, rng)
        drawn = tuple(draw(entries[n]))
        tumors = sorted((t for t in drawn if t.organ == organ), key=lambda tumor: tumor.equivalent_diameter_mm)
        if tumors:
            groups = [
                list(group) for _, group in groupby(tumors, lambda tumor: size_class(tumor.equivalent_diameter_mm))
            ]
            tumor = _one(_weighted(groups, [len(group) for group in groups], balance, rng), rng)
            center = np.rint(entries[n].geometry.to_ijk(tumor.center_mm)).astype(int)
            return PatchCenter(n, triple(center), drawn)
    return None


def _voxel(entry: Entry, place: str, rng: np.random.Generator) -> tuple[int, int, int]:
    points = entry.points(place)
    if len(points) == 0:
        return triple(rng.integers(entry.geometry.shape))
    return triple(points[int(rng.integers(len(points)))])


def _weighted(items: Sequence[T], counts: Sequence[int], balance: Balance, rng: np.random.Generator) -> T:
    weights = np.asarray(counts, float) ** (1 - balance.size_balance)
    return items[int(rng.choice(len(items), p=weights / weights.sum()))]


def _organ(organs: Mapping[str, object], balance: Balance, rng: np.random.Generator) -> str:
    names = list(organs)
    if not balance.organ_weights:
        return _one(names, rng)  # the draw that recipes without weights always had
    edges = np.cumsum([balance.organ_weights.get(name, 1.0) for name in names])
    return names[int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))]


def _case(chosen: Sequence[int] | Array, places: Places, rng: np.random.Generator) -> int:
    edges = np.cumsum(places.weights[np.asarray(chosen)])
    return int(chosen[int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))])


def _one(items: Sequence[T], rng: np.random.Generator) -> T:
    return items[int(rng.integers(len(items)))]
