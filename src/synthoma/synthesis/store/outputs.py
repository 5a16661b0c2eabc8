"""What a synthesis leaves on disk: a case as NIfTI, as an overlay or as plans alone, and what all cases share."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

from synthoma import anatomy, disk, files
from synthoma.cases import Case, Lesion, Source, find_lesions
from synthoma.datasets.painting import label_map
from synthoma.datasets.writing import write_files
from synthoma.engine.records import CaseRecord
from synthoma.errors import CaseError, RecipeError
from synthoma.names import file_name
from synthoma.synthesis.pipeline import Synthesis, insert_tumors
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.store.audit import pass_rates
from synthoma.synthesis.store.columns import Row
from synthoma.synthesis.store.comparing import compared_rows
from synthoma.synthesis.store.copies import source_of
from synthoma.synthesis.store.degraded import degraded
from synthoma.synthesis.store.manifest import (
    MANIFEST,
    Manifest,
    accepted,
    rows_of,
    versions,
    write_manifest,
)
from synthoma.synthesis.store.overlay import OVERLAY, write_overlay
from synthoma.synthesis.store.rendered import MaskWithTumors, lesions_of, replay_rows, synthetic_case
from synthoma.synthesis.tumor import Critic
from synthoma.volume import Box, Volume

Critics = Callable[[Case], Critic]  # a case -> who judges the tumors that are put into it

WRITES = ("full", "overlay", "plans")

# Label maps on request -> file. `instances`: 1, 2, ... by tumor; the others as `datasets.painting` has them.
MAPS = {
    "instances": "tumor_instances.nii.gz",
    "abdomenatlas": "combined_labels.nii.gz",
    "freetumor": "labels_freetumor.nii.gz",
    "organs": "labels_organs.nii.gz",
    "tumors": "labels_tumors.nii.gz",
}

# What the output folder says about itself.
RECORD = "synthesis.json"
FORMAT = 1


def synthesize_case(
    case: Case,
    recipe: SynthesisRecipe,
    seed: int,
    out: Path | str,
    write: str = "full",
    maps: Sequence[str] = (),
    critics: Critics | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Puts tumors into one case and writes it under `out`, whole or not at all; its rows and notes as JSON data.

    write: `full`, the folder OUT/CASE in the AbdomenAtlas layout; `overlay`, the changed voxels alone in that folder;
    `plans`, nothing, since the rows are enough. maps: label maps to add, by names of `MAPS`. critics: a case's further
    judge of its tumors. device: where a learned generator computes. Raises what `synthesize` raises, and `CaseError` if
    the case itself lies where it would be written.
    """
    with _result_folder(case, out, write, maps) as folder:
        synthesis = insert_tumors(case, recipe, seed, critics(case) if critics else None, device)
        rows = rows_of(synthesis, recipe.organs, source_of(case))
        notes = [*synthesis.notes, *_write(case, synthesis, rows, folder, write, maps)]
    return {"rows": rows, "notes": notes}


def replay_case(
    case: Case,
    manifest: Manifest,
    out: Path | str,
    write: str = "full",
    maps: Sequence[str] = (),
    allow_modules: Sequence[str] = (),
    generator: str = "",
) -> dict[str, Any]:
    """The same case again from the manifest, written as by `synthesize_case`: the same bytes, or as `comparing` says.

    allow_modules: generators of the form `module:Class` that the manifest may name. generator: who renders instead of
    whom the plans name, such as a model that lies elsewhere now. Raises `CaseError` if the scan is not the one that the
    plans were made on, or if a tumor comes out otherwise.
    """
    with _result_folder(case, out, write, maps) as folder:
        rows = manifest.rows(case.id)
        synthesis, how = replay_rows(case, rows, allow_modules, generator)
        rows, notes = compared_rows(rows, synthesis.inserted, how)
        notes += _write(case, synthesis, rows, folder, write, maps)
    return {"rows": rows, "notes": notes}


def finish_synthesis(records: Iterable[CaseRecord], out: Path | str, data: Path | str, write: str) -> dict[str, Any]:
    """Writes the manifest of all cases done, and where the healthy scans lie; counts for the run's summary.

    records: of `synthesize_case` or `replay_case`, in the order of the data set. data: its folder.
    """
    out = Path(out)
    rows = [row for record in records for row in record.result.get("rows", ())]
    write_manifest(rows, out / MANIFEST)
    here, there = os.path.abspath(out), os.path.abspath(data)
    place = {"relative": Path(os.path.relpath(there, here)).as_posix()}
    disk.write_json(out / RECORD, {"format": FORMAT, "versions": versions(), "write": write, "data": place})
    tumors = Counter(row["plan"]["organ"] for row in accepted(rows))
    rejected = sum(not row["accepted"] and row["plan"] is not None for row in rows)
    judged = pass_rates(rows)
    return {"tumors": dict(tumors), "rejected": rejected} | ({"critic": judged} if judged else {})


def require_writable(write: str, maps: Sequence[str]) -> None:
    """`RecipeError` for a way of writing, or a label map, that there is none of."""
    if write not in WRITES:
        raise RecipeError(f"cannot write {write!r}", expected=f"one of {', '.join(WRITES)}")
    if maps and (write != "full" or not set(maps) <= set(MAPS)):
        raise RecipeError(
            f"no label maps {', '.join(maps)} with write {write}", expected=f"any of {', '.join(MAPS)}, with write full"
        )


@contextmanager
def _result_folder(case: Case, out: Path | str, write: str, maps: Sequence[str]) -> Iterator[Path]:
    """Where to write a case: a folder that is there when the block ends, and not if it fails."""
    require_writable(write, maps)
    folder = Path(out) / file_name(case.id)
    if isinstance(case.image, Path) and case.image.resolve().is_relative_to(folder.resolve()):
        raise CaseError("the result would lie in the data it is made from", case=case.id, fix="choose another --out")
    if write == "plans":
        yield folder
        return
    with disk.atomic_folder(folder) as part:
        yield part


def _write(
    case: Case, synthesis: Synthesis, rows: Sequence[Row], folder: Path, write: str, maps: Sequence[str]
) -> list[str]:
    """Writes the case in one of the ways; what could not be, in words."""
    if write == "overlay":
        write_overlay(synthesis, rows, folder / OVERLAY)
    elif write == "full":
        done = synthetic_case(case, degraded(synthesis.ct, rows), _sources(case, synthesis, rows), case.dataset)
        provenance = {
            "dataset": case.dataset,
            "scan_digest": synthesis.scan_digest,
            "phase": synthesis.phase,
            "tumors": accepted(rows),
        }
        write_files(done, folder, list(done.masks), provenance, _lesions(case, synthesis), copy=True)
        return _write_maps(done, synthesis, folder, maps)
    return []


def _sources(case: Case, synthesis: Synthesis, rows: Sequence[Row]) -> dict[str, Source]:
    """The masks with tumors; those that nothing changes stay the sources that they are."""
    lesions = lesions_of(rows)
    sources: dict[str, Source] = {}
    for name in dict.fromkeys((*case.masks, *lesions)):
        if name in lesions or _is_displaced(case, synthesis, name):
            sources[name] = MaskWithTumors(case, synthesis, name)
        else:
            sources[name] = case.masks[name]
    return sources


def _is_displaced(case: Case, synthesis: Synthesis, structure: str) -> bool:
    """Whether any voxel of a structure lies where tissue was displaced."""
    if structure in synthesis.displaced:
        return True
    own = synthesis.boxes.get(structure)
    near = [displacement.box for displacement in synthesis.displacements if own and own.meets(displacement.box)]
    if not near:
        return False
    hull = reduce(Box.hull, near)
    if structure in synthesis.masks:
        return bool(synthesis.masks[structure].on(hull).any())
    return bool(case.read_mask(structure, synthesis.stored_box(hull)).data.any())


def _lesions(case: Case, synthesis: Synthesis) -> list[Lesion]:
    """The real lesions of the case, then the parts of each tumor put in, counted on by organ."""
    found = [
        lesion
        for name in case.masks
        if anatomy.is_lesion(name)
        for lesion in find_lesions(case.read_mask(name), name.removesuffix("_lesion"), case.id)
    ]
    count = Counter(lesion.organ for lesion in found)
    for tumor in synthesis.inserted:
        crop = Volume(tumor.mask, synthesis.geometry.crop(tumor.box))
        for part in find_lesions(crop, tumor.plan.organ, case.id, synthetic=True):
            count[part.organ] += 1
            box = synthesis.stored_box(part.box.shift(tumor.box.lower))
            found.append(dataclasses.replace(part, index=count[part.organ], box=box))
    return found


def _write_maps(case: Case, synthesis: Synthesis, folder: Path, maps: Sequence[str]) -> list[str]:
    notes = []
    for name in maps:
        try:
            labels = synthesis.instances() if name == "instances" else label_map(case, name)
        except CaseError as error:
            notes.append(f"no label map {name}: {error.what}")
            continue
        files.write_volume(labels, folder / MAPS[name])
    return notes
