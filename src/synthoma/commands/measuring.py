"""Lesions measured as a radiologist would, and over dates."""

from __future__ import annotations

import os
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from synthoma import reading, runs
from synthoma.commands.outcome import Outcome, as_dataset
from synthoma.datasets.layouts.opening import Dataset
from synthoma.engine import mapping
from synthoma.engine.clusters import ClusterRecipe
from synthoma.measurement.outputs import finish_measurement, write_page
from synthoma.measurement.patient import Patient, measure_patient, patients_of
from synthoma.recipe import Recipe


def measure(
    data: Dataset | Path | str,
    out: Path | str | None = None,
    *,
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    timeout_s: float | None = None,
) -> Outcome:
    """Every lesion of a data set in figures, and each patient's lesions over dates: tables and a page a patient.

    data: any data set with tumor masks, real or synthetic. out: the run folder, `measurement-NAME` unless told. A
    record is a patient's; a patient that fails is a record with its reason.
    """
    dataset = as_dataset(data)
    folder = Path(os.path.abspath(out or f"measurement-{dataset.name}"))
    with runs.open_run(folder, "measure", Recipe(), inputs=reading.input_facts(dataset)) as run:
        records = mapping.map_cases(
            partial(_measure, out=folder), patients_of(dataset.cases), run=run, workers=workers, cluster=cluster,
            timeout_s=timeout_s, title="measure", key=attrgetter("id"), reads=Patient.reads,
        )  # fmt: skip
        counts = finish_measurement(records, folder)
        run.note(**counts)
    return Outcome(folder, records, dataset.faults, counts)


def _measure(patient: Patient, out: Path) -> dict[str, Any]:
    result = measure_patient(patient)
    write_page(result, out)
    return result
