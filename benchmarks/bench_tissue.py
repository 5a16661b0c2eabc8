"""Can a classifier tell each generator's tumors from natural ones? In silico, in patients nobody has learned from.

Natural tumors of an organ, and for each of them one tumor by every generator, of its size and contrast, in healthy
patients of the same scanners; the features and the classifier of `synthoma realism`. Some minutes.

`bench_tissue.py kidney 16 10 GEN` asks it of kidneys: 16 patients with tumors, 10 without, and a generator of your own.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.errors import CaseError
from synthoma.phantom.cohort import CohortRecipe, cohort_case
from synthoma.realism.distances import values_of
from synthoma.realism.features import FEATURES, Row, Side, measure_side
from synthoma.realism.samples import read_samples
from synthoma.realism.shape import signed_distance_mm
from synthoma.realism.telling import PLACE, SIZE, classify
from synthoma.realism.tissue import CORE_MM
from synthoma.synthesis.generators.loading import generators_in_the_box
from synthoma.synthesis.location import measure_organ
from synthoma.synthesis.pipeline import insert_tumors
from synthoma.synthesis.recipe import SynthesisRecipe

PATIENTS, HEALTHY, SMALLEST_MM = 22, 14, 8.0
SEED = 977  # of patients: no cohort that anything has learned from has it
KINDS = {
    "liver": {
        "metastasis": 0.35, "hcc": 0.25, "mucinous_metastasis": 0.15, "hypervascular_metastasis": 0.15,
        "cholangiocarcinoma": 0.1,
    },
    "kidney": {"clear_cell": 0.65, "papillary": 0.35},
    "pancreas": {"ductal_adenocarcinoma": 0.65, "neuroendocrine": 0.35},
    "colon": {"colon_carcinoma": 1.0},
    "esophagus": {"esophageal_carcinoma": 1.0},
    "uterus": {"leiomyoma": 0.6, "endometrial_carcinoma": 0.4},
}  # fmt: skip
REGIONS = {"colon": None, "esophagus": "upper", "uterus": "pelvis"}


def patients(organ: str, count: int, tumors: float, seed: int) -> list[Case]:
    """In-silico patients of one scanner."""
    kind = anatomy.organ(organ)
    hospital = {
        "name": organ, "spacing_mm": [1.4, 2.0], "slice_mm": [2.0, 3.0], "noise_hu": [8, 18], "diameter_mm": [8, 60],
        "phases": {"portal": 0.6, "arterial": 0.3, "unenhanced": 0.1}, "tumors": tumors, "kinds": KINDS[organ],
    }  # fmt: skip
    if organ == "uterus":
        hospital["women"] = 1.0
    recipe = CohortRecipe.model_validate(
        {
            "name": "bench", "cases": count, "seed": seed, "region": REGIONS.get(organ, organ), "spacing_mm": 2.0,
            "structures": [*kind.parts, kind.lesion], "hospitals": [hospital],
        }
    )  # fmt: skip
    return [cohort_case(recipe, index) for index in range(count)]


def contrast_of(case: Case, row: Row) -> float:
    """What a generator is to be asked for: a natural tumor's HU less those that synthesis takes for its organ's.

    In a wall, which is as thin as a voxel or two, the ring that features are measured against is darker than these.
    """
    organ = str(row["organ"])
    if anatomy.SITES[organ].form == "mass":
        return float(row["contrast_hu"])
    (sample,) = (each for each in read_samples(case, (organ,)) if each.lesion.index == row["index"])
    core = sample.ct.data[signed_distance_mm(sample.mask, sample.ct.geometry) > CORE_MM]
    ct, kind = case.read_image(), anatomy.organ(organ)
    masks = {name: case.read_mask(name) for name in kind.structures if name in case.masks}
    model = measure_organ(ct, masks, organ, str(case.attributes["phase"]), sample.blur_mm)
    return float(core.mean()) - model.base_hu


def twin(
    organ: str, row: Row, hosts: Sequence[Case], phase: str, generator: str, number: int, contrast: float
) -> list[Row]:
    """The figures of a tumor of the size and contrast of a natural one, in a host of its phase if there is one."""
    alike = [host for host in hosts if host.attributes["phase"] == phase] or list(hosts)
    diameter = row["equivalent_diameter_mm"]
    recipe = SynthesisRecipe(
        organs=(organ,),
        lesions=(1, 1),
        diameter_mm=(diameter, diameter),
        contrast_hu=(contrast, contrast),
        generator=generator,
    )
    for attempt in range(len(alike)):
        host = alike[(number + attempt) % len(alike)]
        try:
            made = insert_tumors(host, recipe, number)
        except CaseError:
            continue  # no room in this one
        if made.inserted:
            kind = anatomy.organ(organ)
            masks = {name: made.moved(host.read_mask(name)) for name in kind.structures if name in host.masks}
            masks[kind.lesion] = made.tumors(organ)
            case = dataclasses.replace(host, id=f"{host.id}_{number}", image=made.ct, masks=masks, patient=host.patient)
            return measure_side(Side("synthetic", case), (organ,))["lesions"][:1]
    return []


def main(organ: str = "liver", count: int = PATIENTS, healthy: int = HEALTHY, *own: str) -> None:
    """A line for each generator: AUC with its interval by patient, how many lesions, and what tells them."""
    natural: list[tuple[Row, str, float]] = []
    for case in patients(organ, count, 1.0, SEED):
        rows = measure_side(Side("natural", case), (organ,))["lesions"]
        large = [row for row in rows if row["equivalent_diameter_mm"] >= SMALLEST_MM and row["contrast_hu"] is not None]
        natural += [(row, str(case.attributes["phase"]), contrast_of(case, row)) for row in large]
    hosts = patients(organ, healthy, 0.0, SEED + 1)
    real = [row for row, *_ in natural]
    print(f"{len(real)} natural {organ} tumors of {len({row['patient'] for row in real})} in-silico patients")
    print(f"  {'natural':20} {_medians(real)}", flush=True)
    for generator in ("rules", *generators_in_the_box(), *own):
        made = [
            found
            for number, (row, phase, contrast) in enumerate(natural)
            for found in twin(organ, row, hosts, phase, generator, number, contrast)
        ]
        where = f"{len(made)} tumors in {len({row['patient'] for row in made})} patients"
        print(f"  {Path(generator).name:20} {where}")
        # no generator of tissue chooses places, and a twin has its organ for itself
        for about, without in (("everything", SIZE), ("but place", (*SIZE, *PLACE))):
            told = classify(real, made, without=without)
            signs = told.note or ", ".join(f"{name} {fall:.2f}" for name, fall in list(told.weights.items())[:4])
            print(f"  {about:>20} AUC {told.auc.value:.2f} ({told.auc.low:.2f}-{told.auc.high:.2f}); told by {signs}")
        print(f"  {'':20} {_medians(made)}", flush=True)


def _medians(rows: Sequence[Row]) -> str:
    """The middle lesion's tissue."""
    told = [feature.name for feature in FEATURES if feature.about in ("tissue", "border", "noise")]
    return ", ".join(f"{name} {np.nanmedian(values_of(rows, name)):.2f}" for name in told)


if __name__ == "__main__":
    main(*(int(value) if value.isdigit() else value for value in sys.argv[1:]))  # type: ignore[arg-type]
