"""How far a training is, on stderr: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

LINE_EVERY_S = 30.0

log = logging.getLogger(__name__)

# Shows a step: its number, and figures (`loss`, `rate`, and of a validation by name) that are kept until they change.
Show = Callable[[int, Mapping[str, float]], None]


@contextmanager
def show_training(title: str, steps: int, before: int = 0) -> Iterator[Show]:
    """A function to call after a step. steps: of the whole training, of which `before` were done earlier.

    Without a title, or warnings (`--quiet`), nothing is shown. A bar needs a terminal (or rich's `FORCE_COLOR`);
    anything else gets a line every half minute, at every validation and at the end.
    """
    if not title or not log.isEnabledFor(logging.WARNING):
        yield lambda step, figures: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False, markup=False)
    state = _State(steps, before)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
        )
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task(title, total=steps, completed=before, state="")

            def advance(step: int, figures: Mapping[str, float]) -> None:
                state.take(step, figures)
                progress.update(bar, completed=step, state=str(state))

            yield advance
        return

    last = time.monotonic()

    def line(step: int, figures: Mapping[str, float]) -> None:
        nonlocal last
        validated = state.take(step, figures)
        if validated or time.monotonic() - last >= LINE_EVERY_S or step == steps:
            last = time.monotonic()
            console.print(f"{title}: step {step} of {steps}, {state}", soft_wrap=True)

    yield line


class _State:
    """What is known of a training; as text, its loss, rate, time left and last validation."""

    def __init__(self, steps: int, before: int) -> None:
        self.steps, self.before, self.step = steps, before, before
        self.start = time.monotonic()
        self.figures: dict[str, float] = {}
        self.validation = ""

    def take(self, step: int, figures: Mapping[str, float]) -> bool:
        """Whether these are the figures of a validation."""
        self.step = step
        if "loss" in figures:
            self.figures = dict(figures)
            return False
        if figures:
            shown = ", ".join(f"{name} {_short(value)}" for name, value in list(figures.items())[:3])
            self.validation = f"validation at step {step}: {shown}"
        return bool(figures)

    def __str__(self) -> str:
        parts = []
        if "loss" in self.figures:
            parts += [f"loss {_short(self.figures['loss'])}", f"rate {self.figures.get('rate', math.nan):.2g}"]
        done, seconds = self.step - self.before, time.monotonic() - self.start
        if done and self.step < self.steps:
            parts.append(f"{timedelta(seconds=round((self.steps - self.step) * seconds / done))} left")
        return ", ".join([*parts, *([self.validation] if self.validation else [])])


def _short(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3g}"
