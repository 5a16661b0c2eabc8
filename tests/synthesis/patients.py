"""Small patients on disk, and synthesis over all of them as the command does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthesis.phantoms import FAT, KIDNEY, LIVER, grid, noise, rho
from synthoma import disk, files
from synthoma.cases import Case
from synthoma.datasets.writing import write_case
from synthoma.engine.mapping import map_cases
from synthoma.engine.records import CaseRecord
from synthoma.reading import open_dataset
from synthoma.recipe import Recipe
from synthoma.runs import open_run
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.store.manifest import read_manifest
from synthoma.synthesis.store.outputs import finish_synthesis, replay_case, synthesize_case
from synthoma.volume import Geometry, Volume

EXTENT_MM = (120, 120, 120)
UPRIGHT = grid((1.5, 1.5, 3.0), EXTENT_MM)
OBLIQUE = grid((1.6, 1.4, 2.5), EXTENT_MM, (25, -15, 40))
RECIPE = SynthesisRecipe(organs=("liver", "kidney"), lesions=(1, 3), diameter_mm=(6, 16), mass_effect_share=0.6)

# name -> grid, type of the scan, whether the liver has real tumors
PATIENTS = {
    "plain": (UPRIGHT, np.int16, False),
    "ill": (UPRIGHT, np.int16, True),
    "float": (UPRIGHT, np.float32, False),
    "oblique": (OBLIQUE, np.int16, True),
}


def patient(name: str, geometry: Geometry = UPRIGHT, kind: type = np.int16, ill: bool = False) -> Case:
    """Liver, left kidney and spleen in fat; the ill one's liver has two real tumors."""
    seed = sum(name.encode())
    shapes = {
        "liver": rho(geometry, (34, 48, 48), (-22, 0, 0)) < 1,
        "kidney_left": rho(geometry, (15, 18, 34), (36, -14, 0)) < 1,
        "spleen": rho(geometry, (14, 12, 20), (36, 34, 0)) < 1,
    }
    hu = FAT + noise(geometry, 12.0, seed)
    for mask, tissue in zip(shapes.values(), (LIVER, KIDNEY, LIVER + 10), strict=True):
        hu[mask] += tissue - FAT
    if ill:
        shapes["liver_lesion"] = (rho(geometry, (8, 7, 8), (-30, 20, 10)) < 1) | (
            rho(geometry, (5,) * 3, (-22, -20, -15)) < 1
        )
        hu[shapes["liver_lesion"]] -= 40
    scan = Volume(np.asfortranarray((np.rint(hu) if kind is np.int16 else hu).astype(kind)), geometry)
    masks = {structure: Volume(np.asfortranarray(mask), geometry) for structure, mask in shapes.items()}
    return Case(name, scan, masks, patient=f"P-{name}", attributes={"phase": "portal", "age": 61})


def write_patients(root: Path, *names: str) -> Path:
    """A data set of these patients, all unless told, in the AbdomenAtlas layout."""
    for name in names or PATIENTS:
        write_case(patient(name, *PATIENTS[name]), root / name)
    return root


def synthesize_all(
    data: Path, out: Path, write: str = "full", recipe: SynthesisRecipe = RECIPE, **how: Any
) -> Sequence[CaseRecord]:
    """What `synthoma synthesize` does."""
    from functools import partial

    dataset = open_dataset(data)
    with open_run(out, "synthesize", recipe, 0, {"data": str(dataset.root), "write": write}) as run:
        task = partial(synthesize_case, recipe=recipe, seed=0, out=out, write=write)
        records = map_cases(task, dataset.cases, run=run, **how)
        run.note(**finish_synthesis(records, out, dataset.root, write))
    return records


def replay_all(manifest: Path, data: Path, out: Path, write: str = "full") -> Sequence[CaseRecord]:
    """What `synthoma replay` does."""
    from functools import partial

    table, dataset = read_manifest(manifest), open_dataset(data)
    inputs = {"manifest": disk.digest(table.path), "data": str(dataset.root), "write": write}
    with open_run(out, "replay", Recipe(), inputs=inputs) as run:
        task = partial(replay_case, manifest=table, out=out, write=write)
        records = map_cases(task, table.cases_in(dataset), run=run)
        run.note(**finish_synthesis(records, out, dataset.root, write))
    return records


def content(folder: Path) -> dict[str, bytes]:
    """Every file but run.json, which holds the times."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop("run.json", None)
    return found


def voxels(case: Case) -> dict[str, tuple[Any, bytes]]:
    """Type and voxels of the scan and of every mask."""
    volumes = {"scan": case.read_image(), **case.read_masks()}
    return {name: (volume.data.dtype, volume.data.tobytes()) for name, volume in volumes.items()}


def tamper(scan: Path) -> None:
    """One organ of a scan brightens by a few HU."""
    volume = files.read_image(scan)
    files.write_volume(Volume(volume.data + volume.data.dtype.type(3), volume.geometry), scan)
