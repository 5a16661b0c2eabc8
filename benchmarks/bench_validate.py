"""Validation beside mere reading, the catalog of a million rows, and the search for duplicates; CPU seconds."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthoma import files
from synthoma.cases import Case
from synthoma.datasets.catalog import Row, describe_case, read_catalog, write_catalog
from synthoma.datasets.duplicates import find_duplicates
from synthoma.datasets.fingerprint import SIZE, compare, fingerprint, picture_of, views_of
from synthoma.datasets.validation import check_case
from synthoma.phantom.cohort import CohortRecipe, cohort_case
from synthoma.volume import Geometry, Volume

CASES, SHAPE, SPACING_MM = 8, (256, 256, 120), (1.5, 1.5, 2.5)
ORGANS = {
    "liver": ((70, 110, 70), (55, 50, 35)),
    "liver_lesion": ((80, 110, 70), (8, 8, 5)),
    "spleen": ((180, 150, 80), (22, 28, 20)),
    "kidney_left": ((170, 160, 50), (18, 18, 22)),
    "kidney_right": ((90, 160, 45), (18, 18, 22)),
    "stomach": ((160, 90, 75), (30, 25, 20)),
}
ALIKE = CohortRecipe(cases=64, spacing_mm=8.0, region="liver")
ROWS, MANY, PAIRS = 20_000, 1_000_000, 2_000
ROW = "{:<66}{:>9}{:>9}{:>8}"


def main() -> None:
    """Prints figure, ours, what it is compared with and the ratio."""
    print(ROW.format("CPU seconds", "ours", "theirs", "ratio"))
    with tempfile.TemporaryDirectory() as folder:
        cases = [write_case(Path(folder), index) for index in range(CASES)]
        read_all(cases[:1])
        check_case(cases[0])
        reading = best(lambda: read_all(cases))
        checking = best(lambda: [check_case(case) for case in cases])
        print_row(f"validate {CASES} cases with 6 masks (reading them; goal 1.3)", checking, reading)
        rows = [describe_case(case) for case in cases]
        table_of_many(rows, Path(folder))
    duplicates()
    alike()


def write_case(folder: Path, index: int) -> Case:
    """A body with scanner noise in air and six ellipsoid organs, as .nii.gz."""
    rng = np.random.default_rng(index)
    geometry = Geometry.of(SHAPE, SPACING_MM, "LPS")
    i, j, k = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    body = ((i - 128) / 110) ** 2 + ((j - 128) / 75) ** 2 + 0 * k < 1
    hu = np.where(body, np.float32(-90), np.float32(-1000))
    masks = {}
    for name, (center, axes) in ORGANS.items():
        x, y, z = ((at - c + rng.uniform(-4, 4)) / a for at, c, a in zip((i, j, k), center, axes, strict=True))
        mask = x**2 + y**2 + z**2 < 1
        hu[mask] = 60 if name.endswith("lesion") else 110
        path = folder / f"{index}" / "segmentations" / f"{name}.nii.gz"
        files.write_volume(Volume(np.asfortranarray(mask), geometry), path)
        masks[name] = path
    hu += rng.normal(0, 20, SHAPE).astype(np.float32)
    image = folder / f"{index}" / "ct.nii.gz"
    files.write_volume(Volume(np.asfortranarray(np.clip(hu, -1024, 3071).astype(np.int16)), geometry), image)
    return Case(f"case_{index:04d}", image, masks)


def read_all(cases: list[Case]) -> None:
    """Scan and masks as the files hold them, each once."""
    for case in cases:
        files.read_image(case.image)
        for path in case.masks.values():
            files.read_labels(path)


def table_of_many(rows: list[Row], folder: Path) -> None:
    """Real rows repeated under other ids: what a row costs to write, and what a million cost to ask."""
    some = [rows[index % len(rows)] | {"id": f"case_{index:07d}"} for index in range(ROWS)]
    print_row(f"catalog of {ROWS:,} rows: write", best(lambda: write_catalog(some, folder / "some.parquet"), 1))
    part = pq.read_table(folder / "some.parquet")
    with pq.ParquetWriter(folder / "many.parquet", part.schema, compression="zstd") as writer:
        for copy in range(MANY // ROWS):
            ids = pa.array([f"case_{copy * ROWS + index:07d}" for index in range(ROWS)])
            writer.write_table(part.set_column(part.schema.get_field_index("id"), "id", ids), row_group_size=50_000)
    catalog = read_catalog(folder / "many.parquet")
    where = (pc.field("liver_lesion_ml") > 1) & (pc.field("spleen_ml") > 50) & (pc.field("hu_low") < -1000)
    print_row(f"catalog of {MANY:,} rows: filter on three columns", best(lambda: catalog.table(["id"], where)))
    print_row("    one case by its id", best(lambda: list(catalog.rows(pc.field("id") == "case_0777777"))))


def duplicates() -> None:
    """Random pictures: every pair gets the quick look, none the full comparison."""
    rng = np.random.default_rng(0)
    ids = [f"case_{index:05d}" for index in range(PAIRS)]
    pictures = [rng.integers(0, 255, SIZE, np.uint8).tobytes() for _ in ids]
    print_row(f"duplicates among {PAIRS:,} unlike scans", best(lambda: find_duplicates(ids, pictures), 1))


def alike() -> None:
    """In-silico patients are alike: each is compared in full with its likest only, against all pairs in full."""
    pictures = [fingerprint(case.read_image()) for case in map(partial(cohort_case, ALIKE), range(ALIKE.cases))]
    for count in (ALIKE.cases // 4, ALIKE.cases // 2, ALIKE.cases):
        ids, some = [f"case_{index:05d}" for index in range(count)], pictures[:count]
        fast = best(partial(find_duplicates, ids, some), 1)
        print_row(
            f"duplicates among {count} in-silico patients (all pairs in full)", fast, best(partial(in_full, some), 1)
        )


def in_full(pictures: list[bytes]) -> None:
    """Every pair in full, each picture prepared once."""
    prepared = [views_of(picture_of(picture)) for picture in pictures]
    for one, other in itertools.combinations(prepared, 2):
        compare(one, other)


def best(function: Callable[[], object], times: int = 3) -> float:
    """CPU seconds of the fastest run."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


def print_row(name: str, ours: float, theirs: float | None = None) -> None:
    """One line of the table."""
    print(ROW.format(name, f"{ours:.3f}", *(("", "") if theirs is None else (f"{theirs:.3f}", f"{ours / theirs:.2f}"))))


if __name__ == "__main__":
    main()
