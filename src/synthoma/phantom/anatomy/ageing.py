"""What age and habit do to a patient: smaller organs, fat in liver and muscle, pale marrow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from synthoma.phantom.anatomy.patient import Patient
from synthoma.phantom.anatomy.tissues import TISSUES

# ln size lost per decade over 50
_SHRINKS = {"pancreas": 0.07, "kidney_left": 0.025, "kidney_right": 0.025, "liver": 0.02, "spleen": 0.03}
_GROWS = {"aorta": 0.03}
_MENOPAUSE = 52


def aged(patient: Patient, age: int) -> Patient:
    """The patient at this age: organ sizes and HU of tissues, drawn from the patient's own seed."""
    rng = patient.rng("age")
    decades = max(0.0, (age - 50) / 10)
    sizes = dict(patient.sizes)
    for organ, rate in _SHRINKS.items():
        sizes[organ] *= float(np.exp(-rate * decades * rng.uniform(0.5, 1.5)))
    for organ, rate in _GROWS.items():
        sizes[organ] *= float(np.exp(rate * decades * rng.uniform(0.5, 1.5)))
    if patient.sex == "female" and age > _MENOPAUSE:
        sizes["uterus"] *= float(rng.uniform(0.72, 0.92))
    fat = rng.gamma(1.2, 9.0) if rng.random() < 0.25 + 0.35 * patient.visceral else 0.0
    shifts = dict.fromkeys(("liver",), -float(min(fat, 45.0)))
    shifts["muscle"] = -float(rng.uniform(1, 5)) * decades
    marrow = -float(rng.uniform(8, 24)) * (decades + (age - 35) / 60)
    shifts |= {name: marrow for name in TISSUES if "marrow" in name}
    shifts["pancreas"] = -float(rng.uniform(0, 9)) * decades * patient.visceral
    # people differ in how their liver takes up contrast, fat aside
    shifts["liver"] += float(rng.normal(0, 5))
    return replace(patient, sizes=sizes, shift_hu=shifts)


def plaques(patient: Patient, age: int) -> float:
    """How many calcified plaques an aorta has at this age, on average."""
    return float(np.exp(patient.rng("plaques").normal(0, 0.8)) * max(0.0, (age - 45) / 6))
