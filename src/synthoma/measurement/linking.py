"""Which lesion of one date is which of the next: the same, new, gone, split or merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from synthoma.measurement.lesion import Labeled
from synthoma.volume import Array

TOLERANCE_MM = 5.0  # lesions nearer than this, after the organs' centers have been laid over each other, may be one
_SHARE = 0.1  # of the smaller lesion that must lie in the other one, widened by the tolerance
_AT_MOST = 4000  # places in a lesion that are compared


@dataclass(frozen=True)
class Link:
    """A lesion over dates. number: 1, 2, ...; at: for each date the indices of its lesions, several after it has split.

    event: for each date `""`, `new`, `gone`, `split`, `merged into N`, or `away` where it is not there.
    """

    organ: str
    number: int
    at: tuple[tuple[int, ...], ...]
    event: tuple[str, ...]


def link_lesions(dates: Sequence[Labeled | None], first_number: int = 1) -> list[Link]:
    """The lesions of one organ over dates; None for a date at which the organ's lesions are not annotated.

    Grids may differ: lesions are compared in mm, shifted by what the organ's center has moved where the organ is
    annotated. A lesion that lies in two later ones has split; two that lie in one later one have merged, and go on
    under the number of the larger.
    """
    tracks: list[dict[int, tuple[int, ...]]] = []  # date -> indices
    events: list[dict[int, str]] = []
    before: int | None = None
    for date, now in enumerate(dates):
        if now is None:
            continue
        if before is None:
            for lesion in now.lesions:
                tracks.append({date: (lesion.index,)})
                events.append({date: ""})
            before = date
            continue
        earlier = dates[before]
        assert earlier is not None
        _continue(tracks, events, _touching(earlier, now), date, before, now)
        before = date
    organ = next((labeled.organ for labeled in dates if labeled is not None), "")
    return [
        Link(
            organ,
            first_number + place,
            tuple(track.get(date, ()) for date in range(len(dates))),
            tuple(events[place].get(date, "away") for date in range(len(dates))),
        )
        for place, track in enumerate(tracks)
    ]


def _continue(
    tracks: list[dict[int, tuple[int, ...]]], events: list[dict[int, str]], touching: Array, date: int, before: int,
    now: Labeled,
) -> None:  # fmt: skip
    """Each track at a further date. touching: (earlier lesions + 1, later lesions + 1), bool, by index."""
    sizes = {lesion.index: lesion.volume_ml for lesion in now.lesions}
    there = [place for place, track in enumerate(tracks) if track.get(before)]
    heirs = {
        place: tuple(index for index in sizes if any(touching[old, index] for old in tracks[place][before]))
        for place in there
    }
    taken: dict[int, int] = {}
    # the track that holds more of the earlier date comes first: it keeps the number after a merger
    for place in sorted(there, key=lambda place: min(tracks[place][before])):
        own = tuple(index for index in heirs[place] if index not in taken)
        if own:
            tracks[place][date] = own
            events[place][date] = "split" if len(own) > len(tracks[place][before]) else ""
            taken |= dict.fromkeys(own, place)
        elif heirs[place]:
            events[place][date] = f"merged into {taken[heirs[place][0]] + 1}"
        else:
            events[place][date] = "gone"
    for index in sizes:
        if index not in taken:
            tracks.append({date: (index,)})
            events.append({date: "new"})


def _touching(earlier: Labeled, now: Labeled) -> Array:
    """Whether lesion a of the earlier date and lesion b of this one are at the same place: (a, b), counted from 1."""
    result = np.zeros((len(earlier.lesions) + 1, len(now.lesions) + 1), bool)
    if not earlier.lesions or not now.lesions:
        return result
    shift = np.zeros(3)
    if earlier.organ_center_mm is not None and now.organ_center_mm is not None:
        shift = np.subtract(now.organ_center_mm, earlier.organ_center_mm)
    grid = earlier.grid
    margin = [int(np.ceil(TOLERANCE_MM / s)) + 1 for s in grid.spacing_mm]
    box = earlier.box.grow(margin)
    labels = np.zeros(box.shape, earlier.labels.dtype)
    labels[earlier.box.seen_from(box).slices] = earlier.labels
    wide = _widened(labels, grid.spacing_mm)
    for lesion in now.lesions:
        at = np.argwhere(now.labels == lesion.index)
        at = at[:: max(1, len(at) // _AT_MOST)]
        back = grid.to_ijk(now.grid.to_mm(at + np.asarray(now.box.lower)) - shift) - np.asarray(box.lower)
        index = np.round(back).astype(int)
        inside = ((index >= 0) & (index < labels.shape)).all(axis=1)
        seen = wide[tuple(index[inside].T)]
        counts = np.bincount(seen, minlength=len(result))
        for old in earlier.lesions:
            # the smaller of the two decides: a small remnant lies wholly in a large predecessor
            smaller = min(1.0, old.volume_ml / lesion.volume_ml)
            result[old.index, lesion.index] = counts[old.index] > _SHARE * smaller * len(at)
    return result


def _widened(labels: Array, spacing_mm: tuple[float, float, float]) -> Array:
    """Labels with everything within the tolerance given to the nearest one."""
    distance, nearest = ndimage.distance_transform_edt(labels == 0, spacing_mm, return_indices=True)
    return np.where(distance <= TOLERANCE_MM, labels[tuple(nearest)], 0)
