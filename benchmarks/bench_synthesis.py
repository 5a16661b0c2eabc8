"""Rule-based tumors: CPU seconds beside the published synthesizer's, memory, replay, cost over many cases."""

from __future__ import annotations

import resource
import time
import tracemalloc

import numpy as np
from scipy import ndimage

from clock import seconds
from synthoma.cases import Case
from synthoma.synthesis.bodies import surface
from synthoma.synthesis.pipeline import Inserted, Synthesis, insert, insert_tumors, open_scene, replay_plans
from synthoma.synthesis.plan import draw_plans
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.scan import scanner_blur_mm
from synthoma.volume import Geometry, Volume

# The released rule-based code on a 512x512x200 CT at 0.8x0.8x2 mm, CPU seconds measured on a machine of this kind;
# besides about 164 s and 3.2 GB for its textures at start-up.
PUBLISHED_SETS = {"tiny": 0.38, "small": 0.45, "medium": 0.57, "large": 1.29, "mix": 1.73}
PUBLISHED_LESIONS = {"small": 0.35, "medium": 0.37, "large": 0.67}
COUNTS = {"tiny": (3, 10), "small": (3, 10), "medium": (2, 5), "large": (1, 3)}
SHAPE = (512, 512, 200)


def phantom() -> Case:
    """A body with a liver-sized organ, HU with correlated noise, as a case in memory."""
    geometry = Geometry.of(SHAPE, (0.8, 0.8, 2.0), "LPS")
    rng = np.random.default_rng(0)
    tile = ndimage.gaussian_filter(rng.standard_normal((128, 128, 50)), (0.8, 0.8, 0.3), mode="wrap")
    noise = np.tile(15 * tile / tile.std(), (4, 4, 4)).astype(np.float32)
    i, j, k = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    body = ((i - 256) / 220) ** 2 + ((j - 256) / 170) ** 2 < 1
    liver = ((i - 180) / 120) ** 2 + ((j - 240) / 100) ** 2 + ((k - 100) / 60) ** 2 < 1
    hu = np.where(liver, 110, np.where(body, 20, -1000)) + noise
    ct = Volume(np.asfortranarray(np.clip(hu, -1024, 3000).astype(np.int16)), geometry)
    return Case("phantom", ct, {"liver": Volume(np.asfortranarray(liver & body), geometry)})


def recipe_for(size: str, lesions: tuple[int, int] | None = None) -> SynthesisRecipe:
    sizes = {"tiny": 1.0, "small": 1.0, "medium": 1.0, "large": 1.0} if size == "mix" else {size: 1.0}
    return SynthesisRecipe(sizes=sizes, lesions=lesions, mass_effect_share=0.0, phase="portal", retries=0)


def put_in(case: Case, recipe: SynthesisRecipe, seed: int) -> tuple[float, float, int]:
    """CPU seconds of the once-per-case steps and of the tumors, and how many these are."""
    scene = open_scene(case, ("liver",))
    start = time.process_time()
    organ_model = scene.measure_organ("liver", "portal", scanner_blur_mm(scene.ct), False)
    inspected = time.process_time()
    done = [insert(scene, plan, recipe.judge, n, 0) for n, plan in enumerate(draw_plans(organ_model, recipe, seed))]
    return inspected - start, time.process_time() - inspected, sum(isinstance(tumor, Inserted) for tumor in done)


def published_comparison(case: Case) -> None:
    print(
        f"{'set':14}{'tumors':>8}{'tumors s':>10}{'+ survey s':>12}{'published s':>13}{'ratio':>8}{'with survey':>13}"
    )
    total_ours, total_published = 0.0, 0.0
    for size, published in PUBLISHED_SETS.items():
        runs = []
        for seed in range(6):
            parts = COUNTS if size == "mix" else {size: COUNTS[size]}
            surveys, tumors, number = [], 0.0, 0
            for name, lesions in parts.items():
                takes = [put_in(case, recipe_for(name, lesions), seed) for _ in range(2)]
                surveys.append(min(take[0] for take in takes))
                tumors += min(take[1] for take in takes)
                number += takes[0][2]
            runs.append((min(surveys), tumors, number))
        survey, tumors, number = (float(np.mean([run[n] for run in runs])) for n in range(3))
        total_ours, total_published = total_ours + tumors, total_published + published
        print(
            f"{size:14}{number:8.1f}{tumors:10.3f}{tumors + survey:12.3f}{published:13.2f}"
            f"{published / tumors:7.1f}x{published / (tumors + survey):12.1f}x"
        )
    print(f"{'sum':14}{'':8}{total_ours:10.3f}{'':12}{total_published:13.2f}{total_published / total_ours:7.1f}x")
    for size, published in PUBLISHED_LESIONS.items():
        ours = float(np.mean([min(put_in(case, recipe_for(size, (1, 1)), s)[1] for _ in range(2)) for s in range(8)]))
        print(f"{'one ' + size:14}{1:8}{ours:10.3f}{'':12}{published:13.2f}{published / ours:7.1f}x")


def memory(case: Case) -> None:
    recipe = recipe_for("large", (3, 3))
    tracemalloc.start()
    scene = open_scene(case, ("liver",))
    opened = tracemalloc.get_traced_memory()[0]
    organ_model = scene.measure_organ("liver", "portal", 0.7, False)
    for n, plan in enumerate(draw_plans(organ_model, recipe, 1)):
        insert(scene, plan, recipe.judge, n, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    volume = case.read_image().data.nbytes
    print(
        f"peak above the scan and its copy: {(peak - opened) / 2**20:.0f} MB (goal: < 60); scan {volume / 2**20:.0f} MB"
    )


def replay_and_flatness(case: Case) -> None:
    recipe = SynthesisRecipe(lesions=(3, 3), sizes={"small": 1.0, "medium": 1.0}, phase="portal")
    made: list[Synthesis] = []
    drawing = seconds(lambda: made.append(insert_tumors(case, recipe, 1)))
    plans = [tumor.plan for tumor in made[-1].inserted]
    again = seconds(lambda: replay_plans(case, plans))
    print(
        f"synthesize {drawing:.3f} s, replay {again:.3f} s: replay / synthesize {again / drawing:.2f} (goal: at most 1)"
    )
    costs, peaks = [], []
    for seed in range(100):
        start = time.process_time()
        insert_tumors(case, recipe, seed)
        costs.append(time.process_time() - start)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    first, last = float(np.median(costs[:20])), float(np.median(costs[-20:]))
    print(f"cost per case: first 20 {first:.3f} s, last 20 of 100 {last:.3f} s ({last / first:.2f}x; goal: flat)")
    print(f"peak memory after 10 cases {peaks[9]:.0f} MB, after 100 {peaks[-1]:.0f} MB")


def main() -> None:
    start = time.process_time()
    surface._harmonics(surface._MAP)
    print(f"start-up: {time.process_time() - start:.3f} s (published: 164 s and 3.2 GB)")
    case = phantom()
    published_comparison(case)
    memory(case)
    replay_and_flatness(case)


if __name__ == "__main__":
    main()
