"""Learned generators: CPU seconds of one tumor beside the rules' one, and of patches from a bank beside plain ones."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clock import seconds
from synthoma.cases import Case
from synthoma.learning.augmentation import AugmentationRecipe
from synthoma.learning.cache import build_cache
from synthoma.learning.patches import Patches, PatchRecipe
from synthoma.phantom.cohort import CohortRecipe, cohort_case
from synthoma.synthesis.generators.loading import generators_in_the_box, open_generator
from synthoma.synthesis.insertion.crops import DrawnTumor, Voxels
from synthoma.synthesis.online.online import Fixed
from synthoma.synthesis.pipeline import open_scene
from synthoma.synthesis.plan import draw_plans
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.scan import scanner_blur_mm
from synthoma.synthesis.store.copies import copies_of
from synthoma.synthesis.store.manifest import write_manifest
from synthoma.synthesis.store.outputs import synthesize_case
from synthoma.volume import Array, Box

SPACING_MM, DIAMETER_MM = 1.5, 30.0
LIMITS_S = {"rules": 0.1, "adversarial": 0.3, "diffusion": 4.0}
BANK_LIMIT = 1.1
COUNT = 60  # patches a measurement


def tumor_seconds(case: Case, generator: str) -> float:
    """CPU seconds to render a tumor of 30 mm, the first one, which loads the model, not counted."""
    recipe = SynthesisRecipe(lesions=(1, 1), diameter_mm=(DIAMETER_MM, DIAMETER_MM), generator=generator)
    scene = open_scene(case, ("liver",))
    organ = scene.measure_organ("liver", "portal", scanner_blur_mm(scene.ct), False)
    plan = draw_plans(organ, recipe, 0)[0]
    maker = open_generator(generator)
    mask = scene.organ("liver", plan.center_mm, maker.reach(plan))
    maker.render(scene.ct, mask, plan)
    return seconds(lambda: maker.render(scene.ct, mask, plan))


class Unseen(Fixed):
    """A bank whose tumors place the patches, and are then left out."""

    def render(self, entry: Voxels, box: Box, drawn: Sequence[DrawnTumor]) -> tuple[Array, NDArray[np.uint8]]:
        return entry.read_hu(box), entry.read_labels(box)


def bank_ratio(case: Case, generator: str) -> float:
    """CPU time of patches with tumors of a bank over that of the same patches without."""
    healthy = dataclasses.replace(case, attributes={**case.attributes, "healthy": True})
    cases = [dataclasses.replace(healthy, id=f"{case.id}_{number}", patient="") for number in range(3)]
    recipe = SynthesisRecipe(lesions=(2, 4), diameter_mm=(8, 30), generator=generator)
    patches = PatchRecipe(size=(96, 96, 96), spacing_mm=SPACING_MM, hosts="all", lesion_share=1.0, organ_share=0.0)
    off = AugmentationRecipe(
        flip=(0, 0, 0), **{name: 0 for name in AugmentationRecipe.model_fields if name.endswith("probability")}
    )
    patches = patches.with_changes(augmentation=off.as_dict())
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            row for copy in copies_of(cases, 2) for row in synthesize_case(copy, recipe, 0, folder, "plans")["rows"]
        ]
        write_manifest(rows, Path(folder) / "manifest.parquet")
        bank = Fixed(Path(folder))
        entries = build_cache(cases, Path(folder) / "cache", SPACING_MM, bank)
        with_bank = Patches(entries, patches, ("liver", "liver_lesion"), bank)
        plain = Patches(entries, patches, ("liver", "liver_lesion"), Unseen(Path(folder)))
        took: dict[str, list[float]] = {"bank": [], "plain": []}
        for _ in range(4):
            for name, source in (("bank", with_bank), ("plain", plain)):
                start = time.process_time()
                for index in range(COUNT):
                    source.draw(0, index)
                took[name].append(time.process_time() - start)
    return min(took["bank"]) / min(took["plain"])


def main() -> None:
    """A table, and what the figures are measured against."""
    case = cohort_case(CohortRecipe(spacing_mm=SPACING_MM, region="liver"), 0)
    print(f"one tumor of {DIAMETER_MM:g} mm at {SPACING_MM:g} mm, CPU seconds on one core")
    for name in ("rules", *generators_in_the_box()):
        limit = next((value for kind, value in LIMITS_S.items() if name.startswith(kind)), float("nan"))
        print(f"  {name:20} {tumor_seconds(case, name):7.3f}   (at most {limit:g})")
    ratio = bank_ratio(case, "rules")
    print(f"patches from a bank over plain ones: {ratio:.2f} x CPU time (at most {BANK_LIMIT:g})")


if __name__ == "__main__":
    main()
