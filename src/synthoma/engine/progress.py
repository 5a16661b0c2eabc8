"""How far many cases are, on stderr: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

LINE_EVERY_S = 10.0

log = logging.getLogger(__name__)


@contextmanager
def show_progress(title: str, total: int, done_before: int = 0) -> Iterator[Callable[[bool], None]]:
    """A function to call after each case, with whether it failed. Without a title, or warnings, nothing is shown.

    The bar needs a terminal (or rich's `FORCE_COLOR`); anything else gets a line every ten seconds and at the end.
    """
    if not title or not log.isEnabledFor(logging.WARNING):
        yield lambda failed: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False, markup=False)
    pace = _Pace(total, done_before)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}", markup=False),
        )
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task(title, total=total, completed=done_before, pace="")

            def advance(failed: bool) -> None:
                pace.count(failed)
                progress.update(bar, completed=pace.done, pace=str(pace))

            yield advance
        return

    last = time.monotonic()

    def line(failed: bool) -> None:
        nonlocal last
        pace.count(failed)
        if pace.done < total and time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            console.print(f"{title}: {pace.done} of {total}, {pace}", soft_wrap=True)

    try:
        yield line
    finally:
        console.print(f"{title}: {pace.done} of {total}, {pace}", soft_wrap=True)


class _Pace:
    """Counts cases; as text, the rate, the time left and how many failed."""

    def __init__(self, total: int, done_before: int) -> None:
        self.total, self.done, self.failed = total, done_before, 0
        self._before, self._start = done_before, time.monotonic()

    def count(self, failed: bool) -> None:
        self.done += 1
        self.failed += failed

    def __str__(self) -> str:
        now_done, seconds = self.done - self._before, time.monotonic() - self._start
        parts = [f"{self._before} before"] if self._before else []
        if now_done and seconds > 0:
            rate = now_done / seconds
            parts.append(f"{rate:.1f} a second" if rate >= 1 else f"{1 / rate:.1f} s each")
            if self.done < self.total:
                parts.append(f"{timedelta(seconds=round((self.total - self.done) / rate))} left")
        return ", ".join([*parts, f"{self.failed} failed"])
