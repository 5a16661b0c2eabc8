"""The scans of a folder segmented, and what follows for the model: its calibration, and its false alarms."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthoma import anatomy, disk, reading, runs
from synthoma.cases import Case
from synthoma.commands.outcome import Outcome, as_recipe
from synthoma.datasets.layouts.folders import RECORD
from synthoma.datasets.layouts.opening import Dataset
from synthoma.datasets.splits import read_splits
from synthoma.engine import mapping
from synthoma.engine.clusters import ClusterRecipe
from synthoma.extras import need
from synthoma.learning.cache import refuse_failures
from synthoma.names import file_name
from synthoma.reading import open_dataset

if TYPE_CHECKING:
    from synthoma.segmentation.infer import SegmentRecipe
    from synthoma.training.calibration import CalibrateRecipe


def segment(
    model: Path | str,
    scans: Dataset | Path | str,
    out: Path | str,
    *,
    recipe: SegmentRecipe | Path | str | None = None,
    probabilities: bool = False,
    dicom_seg: bool = False,
    device: str = "auto",
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    timeout_s: float | None = None,
) -> Outcome:
    """Organs and tumors of every scan, as masks on exactly the scans' grids in the run folder `out`.

    model: a model file, a train run, or the name of a model in the box. scans: a data set, a DICOM folder, or one
    image. recipe: windows, flips and thresholds, or their TOML file. probabilities: write those of every class too.
    dicom_seg: write a DICOM SEG of every case too, whose scan must be a DICOM series then.
    """
    need("torch", extra="train")
    from synthoma.learning.models import find_model
    from synthoma.segmentation.infer import SegmentRecipe
    from synthoma.segmentation.outputs import find_inputs, require_series, segment_case

    settings, path, out = as_recipe(SegmentRecipe, recipe), find_model(model), Path(os.path.abspath(out))
    dataset = scans if isinstance(scans, Dataset) else find_inputs(Path(scans), open_dataset)
    if dicom_seg:
        require_series(dataset)
    more = {"dicom_seg": "True"} if dicom_seg else {}  # without it the facts stay those of older runs
    facts = reading.input_facts(dataset, model=disk.digest(path), probabilities=str(probabilities), **more)
    with runs.open_run(out, "segment", settings, inputs=facts) as run:
        task = partial(
            segment_case, model=path, recipe=settings, device=device, out=out, probabilities=probabilities,
            dicom_seg=dicom_seg,
        )  # fmt: skip
        records = mapping.map_cases(
            task, dataset.cases, run=run, workers=workers, cluster=cluster, timeout_s=timeout_s, title="segment",
            reads=Case.reads,
        )  # fmt: skip
    return Outcome(out, records, dataset.faults)


def calibrate(
    model: Path | str,
    data: Dataset | Path | str,
    out: Path | str,
    *,
    recipe: CalibrateRecipe | Path | str | None = None,
    splits: Path | str | None = None,
    fold: int = 0,
    device: str = "auto",
    workers: int = 0,
    allow_failures: int = 0,
) -> Outcome:
    """The model with scaled outputs and operating points, chosen on the cases of `data`, in the run folder `out`.

    splits, fold: calibrate on the validation cases of these (JSON). Writes `model.safetensors`, which knows what
    `sensitivity` means, `calibration.json` and `calibration.html`. Raises `FailedCasesError` for more broken cases than
    allowed.
    """
    need("torch", extra="train")
    from synthoma.learning.models import MODEL, find_model, load_model, save_model
    from synthoma.training.calibration import CalibrateRecipe
    from synthoma.training.calibration import calibrate as fit
    from synthoma.training.calibration_report import write_report

    settings, path, out = as_recipe(CalibrateRecipe, recipe), find_model(model), Path(os.path.abspath(out))
    dataset = data if isinstance(data, Dataset) else open_dataset(data)
    cases = list(dataset.cases) if splits is None else [dataset[name] for name in read_splits(splits).folds[fold].val]
    facts = reading.input_facts(dataset, model=disk.digest(path), splits=str(splits or ""), fold=str(fold))
    known = load_model(path)
    with runs.open_run(out, "calibrate", settings, inputs=facts) as run:
        task = partial(_measure, model=str(path), recipe=settings, device=device)
        records = mapping.map_cases(task, cases, run=run, workers=workers, title="calibrate", reads=Case.reads)
        failures = {record.case: record.error for record in records if record.status == "failed"}
        refuse_failures(failures, len(records), allow_failures)
        measured = [record.result for record in records if record.status == "done"]
        found = fit(measured, known.spec.classes, settings, f"{len(measured)} cases of {dataset.name}")
        save_model(out / MODEL, replace(known, spec=known.spec.with_changes(calibration=found)))
        write_report(out, found, measured, settings)
        points = {name: point.as_dict() for name, point in found.points.items()}
        run.note(**points, temperatures=found.temperatures, shifts=found.shifts)
    return Outcome(out, records, dataset.faults, runs.read_run(out).summary)


def _measure(case: Case, model: str, recipe: CalibrateRecipe, device: str) -> dict[str, Any]:
    from synthoma.learning.loop import choose_device
    from synthoma.learning.models import model_at
    from synthoma.training.calibration import measure_case

    with case.named():
        return measure_case(case, model_at(model, choose_device(device)), recipe, device)


def find_negatives(
    data: Dataset | Path | str, segmented: Path | str, out: Path | str, healthy: Sequence[str] = ()
) -> int:
    """The false alarms of a segmentation in cases known to bear no tumor, as a file for a training; how many.

    data: the cases; of each class, those whose mask of tumors is empty, or that are healthy. segmented: the output of
    `segment` on them. healthy: further data sets or cases that are known to be healthy, `*` for all.
    """
    from synthoma.learning.negatives import Negative, write_negatives

    dataset, found = data if isinstance(data, Dataset) else open_dataset(data), []
    model = runs.read_run(segmented).inputs.get("model", "")
    for case in dataset.cases:
        path = Path(segmented) / file_name(case.id) / RECORD
        if not path.is_file():
            continue
        free = not {case.id, case.dataset, "*"}.isdisjoint(healthy) or bool(case.attributes.get("healthy"))
        for lesion in disk.read_json(path)["lesions"]:
            name = anatomy.organ(lesion["organ"]).lesion
            if free or (name in case.masks and not case.read_mask(name).data.any()):
                found.append(
                    Negative(
                        case=case.id, organ=lesion["organ"], center_mm=tuple(lesion["center_mm"]),
                        score=lesion["score"], volume_ml=lesion["volume_ml"],
                    )
                )  # fmt: skip
    write_negatives(out, found, model)
    return len(found)
