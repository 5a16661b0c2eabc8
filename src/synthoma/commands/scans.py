"""The scans of a folder segmented."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from synthoma import disk, reading, runs
from synthoma.cases import Case
from synthoma.commands.outcome import Outcome, as_recipe
from synthoma.datasets.layouts.opening import Dataset
from synthoma.engine import mapping
from synthoma.engine.clusters import ClusterRecipe
from synthoma.extras import need
from synthoma.reading import open_dataset

if TYPE_CHECKING:
    from synthoma.segmentation.infer import SegmentRecipe


def segment(
    model: Path | str,
    scans: Dataset | Path | str,
    out: Path | str,
    *,
    recipe: SegmentRecipe | Path | str | None = None,
    probabilities: bool = False,
    device: str = "auto",
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    timeout_s: float | None = None,
) -> Outcome:
    """Organs and tumors of every scan, as masks on exactly the scans' grids in the run folder `out`.

    model: a model file, a train run, or the name of a model in the box. scans: a data set, a DICOM folder, or one
    image. recipe: windows, flips and thresholds, or their TOML file. probabilities: write those of every class too.
    """
    need("torch", extra="train")
    from synthoma.learning.models import find_model
    from synthoma.segmentation.infer import SegmentRecipe
    from synthoma.segmentation.outputs import find_inputs, segment_case

    settings, path, out = as_recipe(SegmentRecipe, recipe), find_model(model), Path(os.path.abspath(out))
    dataset = scans if isinstance(scans, Dataset) else find_inputs(Path(scans), open_dataset)
    facts = reading.input_facts(dataset, model=disk.digest(path), probabilities=str(probabilities))
    with runs.open_run(out, "segment", settings, inputs=facts) as run:
        task = partial(segment_case, model=path, recipe=settings, device=device, out=out, probabilities=probabilities)
        records = mapping.map_cases(
            task, dataset.cases, run=run, workers=workers, cluster=cluster, timeout_s=timeout_s, title="segment",
            reads=Case.reads,
        )  # fmt: skip
    return Outcome(out, records, dataset.faults)
