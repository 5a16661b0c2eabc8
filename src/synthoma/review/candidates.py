"""Proposals of a model as numbered candidates: one label a lesion, ordered by score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import disk, files
from synthoma.anatomy import is_lesion
from synthoma.cases import Case, Lesion, label_lesions
from synthoma.datasets.layouts.opening import Dataset
from synthoma.errors import CaseError, RunError, SynthomaError
from synthoma.evaluation.masks import ScoredMask
from synthoma.evaluation.outputs import KIND, SUMMARY
from synthoma.evaluation.regions import Region
from synthoma.names import file_name
from synthoma.runs import read_run
from synthoma.volume import Array, Geometry, Volume

MOST = 250  # labels are bytes; a few are left for lesions that a reader adds
SCORES = "scores"  # where `segment` puts the fractions of its tumors
DEFAULT_SCORE = 0.5  # what a plain mask was cut at


@dataclass(frozen=True)
class Candidates:
    """Candidates of one case. labels: uint8 on the scan's grid, 1 is the strongest; lesions: label, score, size.

    note: what a user should know (more than can be numbered), or empty.
    """

    labels: Volume
    lesions: tuple[Mapping[str, Any], ...]
    note: str = ""


def find_candidates(
    case: Case, proposals: Dataset | None, structure: str, geometry: Geometry, least_score: float, least_voxels: int
) -> Candidates:
    """The lesions that a model proposes for a case; none if it has no proposal.

    Where the model left scores, those of at least `least_score` are connected to lesions, and a lesion's score is its
    highest; else, and where somebody changed the mask since, the lesions are those of the mask, ordered by volume.
    Raises `GeometryError` for another grid.
    """
    empty = Volume(np.zeros(geometry.shape, np.uint8), geometry)
    if proposals is None or case.id not in proposals:
        return Candidates(empty, ())
    proposal = replace(proposals[case.id], image=case.image)  # masks may lie there without the scan
    scores = _scores(proposals.root / file_name(case.id) / SCORES / f"{structure}.nii.gz", geometry, case.id)
    source, changed = proposal.masks.get(structure), ""
    if scores is not None and isinstance(source, ScoredMask) and isinstance(source.read(), Region):
        scores, changed = None, f"the mask of {structure} was changed after its scores were made; they are left out"
    if scores is not None:
        mask = Volume(scores.data >= max(least_score, 1e-6), geometry)
    elif structure in proposal.masks:
        mask = proposal.read_mask(structure)
        with case.named():
            geometry.require_same(mask.geometry, "proposal")
    else:
        return Candidates(empty, ())
    found = number(mask, scores, case.id, structure, least_voxels)
    return replace(found, note="; ".join(filter(None, (changed, found.note))))


def number(mask: Volume, scores: Volume | None, case: str, structure: str, least_voxels: int = 1) -> Candidates:
    """The lesions of a mask as candidates, by score, then by volume."""
    lesions, marked, box = label_lesions(mask, structure.removesuffix("_lesion"), case)
    found = [(lesion, _score(lesion, marked[lesion.box.seen_from(box).slices], scores)) for lesion in lesions]
    found = [entry for entry in found if entry[0].voxels >= least_voxels]
    found.sort(key=lambda entry: (-(entry[1] or 0), entry[0].index))
    note = f"{len(found)} candidates, of which the {MOST} strongest are shown" if len(found) > MOST else ""
    table = np.zeros(len(lesions) + 1, np.uint8)
    labels = np.zeros(mask.data.shape, np.uint8, order="F")
    rows = []
    for label, (lesion, score) in enumerate(found[:MOST], start=1):
        table[lesion.index] = label
        rows.append(
            {
                "label": label,
                "score": score,
                "diameter_mm": round(lesion.equivalent_diameter_mm, 1),
                "volume_ml": round(lesion.volume_ml, 3),
            }
        )
    if rows:
        labels[box.slices] = table[marked]
    return Candidates(Volume(labels, mask.geometry), tuple(rows), note)


def threshold_of(run: Path, structure: str, sensitivity: float) -> float:
    """The highest score at which the lesions of a validation run were found with this sensitivity.

    run: an `evaluate` run whose predictions had probabilities. Raises `RunError` if it is none, has no curve of the
    structure, or never reached the sensitivity (naming what it reached).
    """
    record = read_run(run)
    if record.kind != KIND:
        raise RunError(f"{run} is no evaluation", found=record.kind, expected="the output folder of synthoma evaluate")
    curves = disk.read_json(run / SUMMARY).get("froc", {})
    curve = curves.get(structure, [])
    if len(curve) < 2:
        raise RunError(
            f"{run} has no FROC curve of {structure}",
            found=", ".join(curves) or "no curve",
            fix="evaluate predictions with probabilities, or say --set least_score=0.5",
        )
    points: list[tuple[float, float]] = [
        (point["threshold"], point["sensitivity"]) for point in curve if point["sensitivity"] is not None
    ]
    enough = [threshold for threshold, reached in points if reached >= sensitivity]
    if not enough:
        raise RunError(
            f"{run} never found {sensitivity:.0%} of the lesions of {structure}",
            found=f"at most {max((reached for _, reached in points), default=0):.0%}",
            fix="ask for less with --set sensitivity=...",
        )
    return max(enough)


def _scores(path: Path, geometry: Geometry, case: str) -> Volume | None:
    if not path.is_file():
        return None
    try:
        scores = files.read_image(path)
        geometry.require_same(scores.geometry, "proposal's scores")
    except SynthomaError as error:
        raise error.of_case(case) from error
    return replace(scores, geometry=geometry)


def _score(lesion: Lesion, marked: Array, scores: Volume | None) -> float | None:
    """The highest score within a lesion, None without scores. marked: lesions by index, on the lesion's box."""
    if scores is None:
        return None
    return round(float(scores.data[lesion.box.slices][marked == lesion.index].max()), 4)


def lesion_structures(structures: tuple[str, ...], dataset: Dataset, proposals: Dataset | None) -> tuple[str, ...]:
    """The structures to annotate: those asked for, else all tumors that proposals or data have.

    Raises `CaseError` if there is none.
    """
    sources = [*(proposals.cases if proposals else ()), *dataset.cases]
    found = structures or tuple(sorted({name for case in sources for name in case.masks if is_lesion(name)}))
    if not found:
        raise CaseError(
            f"neither {dataset.root} nor the proposals say which lesions to annotate",
            fix='name them: --set structures=["liver_lesion"]',
        )
    return found
