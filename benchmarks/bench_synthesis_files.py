"""A whole case from files to files, in CPU seconds beside reading and writing those files, and the sizes left."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from clock import seconds
from synthoma import files
from synthoma.cases import Case
from synthoma.datasets.layouts.opening import read_case
from synthoma.datasets.writing import write_case
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.store.manifest import Row, read_manifest, write_manifest
from synthoma.synthesis.store.outputs import replay_case, synthesize_case
from synthoma.volume import Geometry, Volume

SHAPE, SPACING_MM = (512, 512, 200), (0.8, 0.8, 2.0)
SEEDS = range(4)
RECIPES = {
    "liver": SynthesisRecipe(organs=("liver",)),
    "liver, kidney, pancreas": SynthesisRecipe(organs=("liver", "kidney", "pancreas")),
}
ROW = "{:<58}{:>9}{:>9}{:>8}"


def main() -> None:
    """Prints figure, ours, what it is compared with, and the ratio."""
    print(ROW.format("a case from files to files, CPU seconds", "ours", "theirs", "ratio"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_case(phantom(), root / "data" / "phantom")
        places = {"512x512x200 phantom": root / "data" / "phantom"}
        real = Path(os.environ.get("SYNTHOMA_DATA", "")) / "chaos"
        if real.is_dir():
            places["chaos, 512x512x78"] = real
        rows: list[Row] = []
        for title, place in places.items():
            for name, recipe in RECIPES.items():
                rows += case_figures(f"{title}: {name}", place, recipe, root)
        manifest_figure(rows, root)


def case_figures(title: str, place: Path, recipe: SynthesisRecipe, root: Path) -> list[Row]:
    """Mean of some seeds for each way of writing and for replay; the rows made."""
    rows: list[Row] = []
    spent = dict.fromkeys(("plain", "full", "overlay", "plans", "replay"), 0.0)
    size = 0
    for seed in SEEDS:
        for write in ("full", "overlay", "plans"):
            task = partial(synthesize_case, read_case(place), recipe, seed, root / write, write)
            spent[write] += seconds(task) / len(SEEDS)
        spent["plain"] += seconds(partial(copy_files, place, root / "full" / place.name, root / "copy")) / len(SEEDS)
        size += (root / "overlay" / place.name / "overlay.npz").stat().st_size // len(SEEDS)
        result = task()
        write_manifest(result["rows"], root / "one.parquet")
        table = read_manifest(root / "one.parquet")
        spent["replay"] += seconds(partial(replay_case, read_case(place), table, root / "again")) / len(SEEDS)
        rows += [row | {"case": f"{title}_{seed}"} for row in result["rows"]]
    plain = spent["plain"]
    tumors = sum(row["accepted"] for row in rows) / len(SEEDS)
    print_row(f"{title}, {tumors:.1f} tumors: full / read + write", spent["full"], plain)
    print_row("    replay, full / synthesize, full", spent["replay"], spent["full"])
    print_row("    overlay / read + write", spent["overlay"], plain)
    print_row("    plans / read + write", spent["plans"], plain)
    scan = (place / "ct.nii.gz").stat().st_size
    print(ROW.format("    overlay / ct.nii.gz, MB", f"{size / 1e6:.3f}", f"{scan / 1e6:.1f}", f"1:{scan / size:.0f}"))
    return rows


def copy_files(place: Path, done: Path, out: Path) -> None:
    """What has to be done anyway: every file of the healthy case read, every file of the result written."""
    case, result = read_case(place), read_case(done)
    scan, masks = case.read_image(), None
    files.write_volume(scan, out / "ct.nii.gz")
    for name in result.masks:
        if name in case.masks:
            masks = case.read_mask(name)
        assert masks is not None
        files.write_volume(masks, out / f"{name}.nii.gz")


def manifest_figure(rows: list[Row], root: Path) -> None:
    """The size of a manifest of 30,000 scans, from plans as drawn with every drawn number made different."""
    rng = np.random.default_rng(0)
    made = []
    for case in range(30_000):
        name, digest = f"BDMAP_{case:08d}", rng.bytes(8).hex()
        for _ in range(rng.integers(2, 6)):
            row = rows[rng.integers(len(rows))]
            plan = dict(row["plan"]) | {
                "orientation": rng.standard_normal(4).tolist(),
                "seed": int(rng.integers(2**63)),
            }
            for field in ("center_mm", "axes_mm"):
                plan[field] = rng.normal(0, 90, 3).round(3).tolist()
            for field in ("base_hu", "contrast_hu", "roughness", "spectrum", "skew", "edge_mm"):
                plan[field] = round(plan[field] * rng.uniform(0.5, 1.5), 3)
            scores = {key: round((value or 0) * rng.uniform(0.5, 1.5), 4) for key, value in row["scores"].items()}
            fresh = {"case": name, "scan_digest": digest, "digest": rng.bytes(8).hex(), "plan": plan, "scores": scores}
            made.append(row | fresh)
    spent = seconds(lambda: write_manifest(made, root / "many.parquet"), repeats=1)
    size = (root / "many.parquet").stat().st_size
    print(
        ROW.format(
            f"manifest of 30,000 scans, {len(made):,} rows, MB (limit)", f"{size / 1e6:.1f}", "50", f"{size / 50e6:.2f}"
        )
    )
    print(f"    {size / len(made):.0f} bytes a row, written in {spent:.1f} s, read in ", end="")
    print(f"{seconds(lambda: read_manifest(root / 'many.parquet').cases, repeats=1):.1f} s")


def phantom() -> Case:
    """A body with scanner noise and eight organs that are ellipsoids, as large as those of a patient."""
    rng = np.random.default_rng(0)
    geometry = Geometry.of(SHAPE, SPACING_MM, "LPS")
    x, y, z = (np.arange(n, dtype=np.float32) * s - n * s / 2 for n, s in zip(SHAPE, SPACING_MM, strict=True))
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    hu = np.where((x / 170) ** 2 + (y / 120) ** 2 < 1, np.float32(-90), np.float32(-1000)) + 0 * z
    organs = {
        "liver": ((-80, -20, 60), (65, 75, 70), 110),
        "kidney_right": ((-60, 60, -40), (25, 25, 52), 190),
        "kidney_left": ((60, 60, -30), (25, 25, 52), 190),
        "spleen": ((115, 40, 60), (28, 35, 50), 115),
        "pancreas": ((20, 0, -10), (55, 13, 14), 100),
        "aorta": ((5, 45, 0), (11, 11, 190), 160),
        "stomach": ((60, -40, 60), (45, 35, 45), 40),
        "gall_bladder": ((-30, -70, -30), (15, 15, 25), 10),
    }
    masks = {}
    for name, (center, half, tissue) in organs.items():
        shares = (((axis - c) / h) ** 2 for axis, c, h in zip((x, y, z), center, half, strict=True))
        mask = np.asfortranarray(sum(shares) < 1)
        hu[mask] = tissue
        masks[name] = Volume(mask, geometry)
    hu += rng.standard_normal(SHAPE, np.float32) * 12
    return Case("phantom", Volume(np.asfortranarray(np.rint(hu).astype(np.int16)), geometry), masks)


def print_row(figure: str, ours: float, theirs: float) -> None:
    print(ROW.format(figure, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}"))


if __name__ == "__main__":
    main()
