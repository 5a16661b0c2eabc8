"""One host of a trial: a place for the largest lesion, then every cell of the design at that place, one scan a cell."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from synthoma import disk
from synthoma.cases import Case
from synthoma.degradation import Degradation, in_view
from synthoma.names import file_name
from synthoma.seeds import seed_for
from synthoma.synthesis.insertion.insertion import Inserted
from synthoma.synthesis.insertion.scene import Scene, scan_digest
from synthoma.synthesis.pipeline import Synthesis, as_stored, open_scene, phase_of
from synthoma.synthesis.scan import scanner_blur_mm
from synthoma.synthesis.store.columns import Row
from synthoma.synthesis.store.degraded import as_json
from synthoma.synthesis.store.manifest import rows_of
from synthoma.synthesis.store.overlay import OVERLAY, write_overlay
from synthoma.trials.lesions import Site, insert_all, synthesis_recipe
from synthoma.trials.places import find_sites
from synthoma.trials.recipe import Cell, TrialRecipe, part_of
from synthoma.volume import Geometry

_NOISE_MM = 0.35  # SD of the kernel of added noise: 1/e of its correlation at 0.7 mm, as in real scans (docs/priors.md)


def plan_host(case: Case, recipe: TrialRecipe, seed: int, out: Path | str, write: str) -> dict[str, Any]:
    """Every scan of one host: HOST without a lesion, then HOST_trial001, ... one for each cell; as JSON data.

    Where the scan is made worse, HOST_bare001, ... are the host without a lesion made worse alike. write: `overlay`
    writes the changed voxels of each scan under `out`; `plans` nothing, since the rows are enough. rows: of the
    manifest. lesions: one a lesion, with the attributes it has. untouched: one a scan without any. left_out: one a
    lesion that has no room or was rejected, with the reason. Raises `CaseError` if the case lacks the organ, or has no
    room even for the smallest.
    """
    scene = open_scene(case, (recipe.organ,))
    rules = synthesis_recipe(recipe)
    phase = phase_of(case, scene, rules)
    organ = scene.measure_organ(recipe.organ, phase, scanner_blur_mm(scene.ct), recipe.vessel_veto)
    empty = partial(_as_synthesis, scene, scan_digest(scene.original), phase)
    cells = recipe.cells()
    assert scene.map is not None  # the organ is in it
    labels = scene.map.copy(order="K")
    sites, lacking = find_sites(scene, organ, recipe, seed, labels)
    made: dict[str, list[Any]] = {"rows": [], "lesions": [], "untouched": [], "left_out": []}

    def keep(synthesis: Synthesis, degraded: Degradation) -> None:
        rows = rows_of(synthesis, (recipe.organ,), case.id)
        rows = [row | as_json(degraded) for row in rows]
        made["rows"] += rows
        if write == "overlay":
            with disk.atomic_folder(Path(out) / file_name(synthesis.case)) as folder:
                write_overlay(synthesis, rows, folder / OVERLAY)

    for number, cell in enumerate(recipe.states()):
        identity = bare_id(case.id, number)
        keep(empty(identity, ()), degradation_of(cell, scene.geometry, case.id, seed))
        made["untouched"].append({"case": identity, "host": case.id, "patient": case.patient, **cell})
    for number in range(len(cells)):
        # each place holds another cell, so a scan has small and large, faint and plain lesions; the scan is as of all
        wanted = _wanted(sites, cells, number, recipe.sites)
        identity = trial_id(case.id, number + 1)
        degraded = degradation_of(cells[number], scene.geometry, case.id, seed)
        view = in_view(scene.geometry, degraded.view_mm) if degraded.view_mm else None
        attempts = insert_all(scene, wanted, rules, recipe.inside, labels, view)
        inserted = [(site, cell, each) for site, cell, each in attempts if isinstance(each, Inserted)]
        for site, cell, each in attempts:
            if isinstance(each, Inserted):
                made["lesions"].append(_lesion(case, identity, phase, site, cell, each))
            else:
                made["left_out"].append(_left_out(case, site.number, cell, each.verdict.reason))
        if inserted:
            keep(empty(identity, tuple(each for _, _, each in inserted)), degraded)
    made["left_out"] += [
        _left_out(case, number, cell, reason)
        for number, place, reason in lacking
        for cell in cells
        if part_of(cell, "place") == place
    ]
    return {"host": case.id, "patient": case.patient, "phase": phase, **made}


def _wanted(sites: list[Site], cells: list[Cell], number: int, of: int) -> list[tuple[Site, Cell]]:
    """The site and cell of each lesion in scan `number`: at the first site that cell, at others cells further on.

    All are of one state of the scan; a site without a place for its cell has none.
    """
    alike = [cell for cell in cells if part_of(cell, "scan") == part_of(cells[number], "scan")]
    first = alike.index(cells[number])
    chosen = [(site, alike[(first + site.number * len(alike) // of) % len(alike)]) for site in sites]
    return [(site, cell) for site, cell in chosen if part_of(cell, "place") in site.centers_mm]


def degradation_of(cell: Cell, scan: Geometry, host: str, seed: int) -> Degradation:
    """How the scan of a cell is made worse; the noise of all scans of a host is the same, more or less of it."""
    state = dict(part_of(cell, "scan"))
    cut_mm = state.get("view_cut_mm", 0.0)
    width_mm = min(n * spacing for n, spacing in zip(scan.shape[:2], scan.spacing_mm[:2], strict=True))
    noise_hu = state.get("noise_hu", 0.0)
    return Degradation(
        slice_mm=state.get("slice_mm", 0.0),
        blur_mm=state.get("blur_mm", 0.0),
        noise_hu=noise_hu,
        noise_mm=_NOISE_MM if noise_hu else 0.0,
        noise_seed=seed_for(seed, host, "added noise") % 2**31 if noise_hu else 0,
        shift_hu=state.get("shift_hu", 0.0),
        view_mm=round(max(width_mm - cut_mm, 1.0), 1) if cut_mm else 0.0,
    )


def trial_id(host: str, number: int) -> str:
    """The id of scan 1, 2, ... of a host."""
    return f"{host}_trial{number:03d}"


def bare_id(host: str, number: int) -> str:
    """The id of a scan without a lesion: 0 is the host, 1, 2, ... the host made worse."""
    return f"{host}_bare{number:03d}" if number else host


def _as_synthesis(scene: Scene, digest: str, phase: str, identity: str, inserted: tuple[Inserted, ...]) -> Synthesis:
    """A scan of the trial; its voxels are the host's, since rows and overlay need only what the lesions changed."""
    return Synthesis(
        identity, digest, phase, as_stored(scene.original, scene.stored), inserted, boxes=scene.boxes,
        notes=("the host without a lesion",) * (not inserted),
    )  # fmt: skip


def _lesion(case: Case, identity: str, phase: str, site: Site, cell: Cell, done: Inserted) -> Row:
    return {
        "case": identity, "host": case.id, "patient": case.patient, "phase": phase, "site": site.number, **cell,
        "center_mm": list(done.plan.center_mm), "radius_mm": done.plan.radius_mm,
        "measured_diameter_mm": done.verdict.scores["equivalent_diameter_mm"],
        "measured_contrast_hu": done.verdict.scores["contrast_hu"],
    }  # fmt: skip


def _left_out(case: Case, site: int, cell: Cell, reason: str) -> Row:
    return {"host": case.id, "patient": case.patient, "site": site, **cell, "reason": reason}
