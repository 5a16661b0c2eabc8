"""What a training run says of itself while it runs: `metrics.jsonl` in the run folder, and TensorBoard."""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from synthoma.extras import need
from synthoma.runs import Run

BOARD = "tensorboard"


class Metrics:
    """Figures by step, as lines of JSON and, if asked for, as TensorBoard curves. Without a run nothing is kept.

    Resuming at `step` drops what a killed run wrote of later steps.
    """

    def __init__(self, run: Run | None, step: int, tensorboard: bool) -> None:
        self._journal = run.journal("metrics") if run else None
        self._board: Board | None = None
        if self._journal is not None:
            kept = [entry for entry in self._journal.read() if entry["step"] <= step]
            self._journal.replace(json.dumps(entry) for entry in kept)
        if run and tensorboard:
            self._board = Board(run.folder / BOARD, step)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of one step; one that is undefined (nan) is null in the file and left out of the curves."""
        if self._journal is not None:
            plain = {name: None if math.isnan(value) else float(f"{value:.6g}") for name, value in figures.items()}
            self._journal.append(json.dumps({"step": step, **plain}))
        if self._board is not None:
            self._board.scalars(step, {name: value for name, value in figures.items() if not math.isnan(value)})

    def picture(self, step: int, name: str, png: Path) -> None:
        """A PNG, on the board only."""
        if self._board is not None:
            self._board.picture(step, name, png)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()


class Board:
    """A file of TensorBoard events. Unlike `SummaryWriter`'s its name tells no host and no process, but the step."""

    def __init__(self, folder: Path, step: int) -> None:
        self._events = need("tensorboard.compat.proto.event_pb2", extra="train")
        self._summaries = need("tensorboard.compat.proto.summary_pb2", extra="train")
        records = need("tensorboard.summary.writer.record_writer", extra="train")
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("events.out.tfevents.*"):  # of a killed run, from a later step on
            if path.name.rpartition(".")[2].isdigit() and int(path.name.rpartition(".")[2]) >= step:
                path.unlink()
        self._writer = records.RecordWriter((folder / f"events.out.tfevents.{step:010d}").open("wb"))
        self._write(file_version="brain.Event:2")
        start = self._events.SessionLog(status=self._events.SessionLog.START)
        self._write(step=step + 1, session_log=start)  # what older files have of later steps is not shown

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        """Points of curves."""
        values = [self._summaries.Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._write(step=step, summary=self._summaries.Summary(value=values))

    def picture(self, step: int, name: str, png: Path) -> None:
        """A PNG file as it is."""
        content = png.read_bytes()
        width, height = struct.unpack(">II", content[16:24])  # of the header, which comes first
        image = self._summaries.Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=content)
        value = self._summaries.Summary.Value(tag=name, image=image)
        self._write(step=step, summary=self._summaries.Summary(value=[value]))

    def close(self) -> None:
        """Nothing is written after this."""
        self._writer.close()

    def _write(self, **what: Any) -> None:
        event = self._events.Event(wall_time=time.time(), **what)
        self._writer.write(event.SerializeToString())
        self._writer.flush()
