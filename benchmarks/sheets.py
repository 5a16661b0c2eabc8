"""Contact sheets: tumors of several generators in the same places, natural ones below, a sheet for each organ.

    python benchmarks/sheets.py OUT --data DIR --hosts ID,ID,ID --natural --organs liver,colon --generators rules,GEN

DIR is any data set with organ masks. Each host gets `--each` tumors an organ. With one seed, generators draw the same
sizes, places and contrasts. `--natural` adds the lesions that other cases of DIR have. Every tumor is shown twice: as
it is, and half as large with its outline, on the axial slice where it is largest (window 400, level 40).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from synthoma import anatomy
from synthoma.cases import Case, label_lesions
from synthoma.datasets.layouts.opening import Dataset
from synthoma.errors import SynthomaError
from synthoma.reading import open_dataset
from synthoma.synthesis.pipeline import insert_tumors
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.volume import Array, Volume

COLUMNS, TILE, TEXT = 12, 120, 14  # px
WINDOW = (-160.0, 240.0)
AROUND, LEAST_MM = 2.4, 44.0  # how much is shown, in diameters, and at least
LABELS = (225, 225, 225)
OUTLINE = (64, 80, 255)


@dataclass(frozen=True, eq=False)
class Shown:
    """A tumor on its largest axial slice: HU and mask (bool), square; what stands above it."""

    hu: Array
    mask: NDArray[np.bool_]
    title: str


def shown(ct: Volume, mask: Volume, title: str) -> Shown | None:
    """The tumor of a mask as a sheet shows it; None for an empty mask. Both along `LPS`."""
    ct, mask = ct.reorient("LPS"), mask.reorient("LPS")
    areas = mask.data.sum(axis=(0, 1))
    if not areas.any():
        return None
    plane = int(np.argmax(areas))
    where = np.argwhere(mask.data[:, :, plane])
    spacing = np.asarray(ct.geometry.spacing_mm[:2])
    volume = float(mask.data.sum()) * ct.geometry.voxel_mm3
    diameter = (6 * volume / np.pi) ** (1 / 3)
    extent = float((np.ptp(where, axis=0) * spacing).max())
    side_mm = max(LEAST_MM, AROUND * diameter, 1.3 * extent)
    center = where.min(axis=0) + np.ptp(where, axis=0) / 2
    steps = side_mm / TILE / spacing
    to_voxels = np.array(
        [[steps[1], 0, center[1] - steps[1] * TILE / 2], [0, steps[0], center[0] - steps[0] * TILE / 2]], np.float32
    )

    def tile(data: Array, how: int) -> Array:
        # rows of the picture go to the back, columns to the patient's left
        picture = np.ascontiguousarray(data[:, :, plane].astype(np.float32))
        found = cv2.warpAffine(picture, to_voxels, (TILE, TILE), flags=how | cv2.WARP_INVERSE_MAP, borderValue=-1024)
        return np.asarray(found).T

    outline = tile(mask.data, cv2.INTER_LINEAR) > 0.5
    return Shown(tile(ct.data, cv2.INTER_LINEAR), outline, f"{title} {diameter:.0f}")


def put_in(host: Case, recipe: SynthesisRecipe, seed: int) -> Iterator[tuple[str, Shown]]:
    """The organ and the picture of each tumor that a recipe puts into a host."""
    made = insert_tumors(host, recipe, seed)
    for note in made.notes:
        print(f"  {host.id}, {recipe.generator}: {note}")
    for number, tumor in enumerate(made.inserted, 1):
        view = made.view(number)
        picture = shown(view.after, view.mask, f"{host.id[-4:]}.{tumor.index + 1}")
        if picture is not None:
            yield tumor.plan.organ, picture


def natural(dataset: Dataset, organs: Sequence[str], hosts: Sequence[str]) -> Iterator[tuple[str, Shown]]:
    """The organ and the picture of each real lesion of the cases that are no hosts, up to a row of each organ."""
    counts = dict.fromkeys(organs, 0)
    for case in dataset.cases:
        chosen = [o for o in organs if counts[o] < COLUMNS and anatomy.organ(o).lesion in case.masks]
        if case.id in hosts or not chosen or case.attributes.get("healthy"):
            continue
        ct = case.read_image()
        for organ in chosen:
            mask = case.read_mask(anatomy.organ(organ).lesion)
            lesions, labels, whole = label_lesions(mask, organ, case.id)
            for lesion in lesions[: min(3, COLUMNS - counts[organ])]:
                own = np.zeros(mask.data.shape, bool)
                own[whole.slices] = labels == lesion.index
                box = lesion.box.grow(round(60 / min(ct.geometry.spacing_mm))).clip(own.shape)
                picture = shown(ct.crop(box), Volume(own, ct.geometry).crop(box), case.id[-4:])
                if lesion.equivalent_diameter_mm >= 8 and picture is not None:
                    counts[organ] += 1
                    yield organ, picture


def sheet(rows: dict[str, list[Shown]], path: Path) -> None:
    """Rows of tumors with their names, as a PNG; none without a tumor."""
    if not rows:
        print(f"  {path.stem}: no tumor had room")
        return
    high = TEXT + TILE + TILE // 2 + 4
    canvas = np.zeros((high * len(rows), 84 + COLUMNS * (TILE + 2), 3), np.uint8)
    for row, (name, pictures) in enumerate(rows.items()):
        top = row * high
        cv2.putText(canvas, name[:12], (2, top + 60), cv2.FONT_HERSHEY_SIMPLEX, 0.36, LABELS, 1, cv2.LINE_AA)
        for column, picture in enumerate(pictures[:COLUMNS]):
            left = 84 + column * (TILE + 2)
            grey = np.clip((picture.hu - WINDOW[0]) / (WINDOW[1] - WINDOW[0]) * 255, 0, 255).astype(np.uint8)
            plain = np.repeat(grey[..., None], 3, axis=2)
            canvas[top + TEXT : top + TEXT + TILE, left : left + TILE] = plain
            small = cv2.resize(plain, (TILE // 2, TILE // 2), interpolation=cv2.INTER_AREA)
            mask = cv2.resize(picture.mask.astype(np.uint8), (TILE // 2, TILE // 2), interpolation=cv2.INTER_NEAREST)
            lines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(small, lines, -1, OUTLINE, 1)
            canvas[top + TEXT + TILE + 2 : top + TEXT + TILE + 2 + TILE // 2, left : left + TILE // 2] = small
            place = (left, top + TEXT - 4)
            cv2.putText(canvas, picture.title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.34, LABELS, 1, cv2.LINE_AA)
    cv2.imwrite(str(path), canvas)
    print(path, {name: len(pictures) for name, pictures in rows.items()}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--hosts", required=True)
    parser.add_argument("--organs", default=",".join(anatomy.ORGANS))
    parser.add_argument("--generators", default="rules,adversarial-small,diffusion-small")
    parser.add_argument("--each", type=int, default=3)
    parser.add_argument("--diameter-mm", type=float, nargs=2, default=(10.0, 40.0))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--natural", action="store_true")
    asked = parser.parse_args()
    organs, hosts, dataset = asked.organs.split(","), asked.hosts.split(","), open_dataset(asked.data)
    rows: dict[str, dict[str, list[Shown]]] = {organ: defaultdict(list) for organ in organs}
    asked.out.mkdir(parents=True, exist_ok=True)
    for case in [case for case in dataset.cases if case.id in hosts]:
        here = [organ for organ in organs if case.has_organ(organ)]
        for generator in asked.generators.split(","):
            recipe = SynthesisRecipe.model_validate(
                {
                    "organs": here, "lesions": (asked.each, asked.each), "generator": generator,
                    "diameter_mm": asked.diameter_mm,
                }
            )  # fmt: skip
            try:
                for organ, picture in put_in(case, recipe, asked.seed):
                    rows[organ][Path(generator).name].append(picture)
            except SynthomaError as error:
                print(f"  {case.id}, {generator}: {error}")
        for organ in here:
            sheet(rows[organ], asked.out / f"{organ}.png")
    if asked.natural:
        for organ, picture in natural(dataset, organs, hosts):
            rows[organ]["natural"].append(picture)
        for organ in organs:
            sheet(rows[organ], asked.out / f"{organ}.png")


if __name__ == "__main__":
    main()
