"""What a training run says of itself while it runs: `metrics.jsonl` in the run folder, and TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from synthoma.extras import need
from synthoma.runs import Run


class Metrics:
    """Figures by step, as lines of JSON and, if asked for, as TensorBoard curves. Without a run nothing is kept.

    Resuming at `step` drops what a killed run wrote of later steps.
    """

    def __init__(self, run: Run | None, step: int, tensorboard: bool) -> None:
        self._journal = run.journal("metrics") if run else None
        self._board: Any = None
        if self._journal is not None:
            kept = [entry for entry in self._journal.read() if entry["step"] <= step]
            self._journal.replace(json.dumps(entry) for entry in kept)
        if run and tensorboard:
            writer = need("torch.utils.tensorboard", extra="train").SummaryWriter
            self._board = writer(str(run.folder / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of one step; one that is undefined (nan) is null in the file and left out of the curves."""
        if self._journal is not None:
            plain = {name: None if math.isnan(value) else float(f"{value:.6g}") for name, value in figures.items()}
            self._journal.append(json.dumps({"step": step, **plain}))
        if self._board is not None:
            for name, value in figures.items():
                if not math.isnan(value):
                    self._board.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()
