"""What a training says while it runs: step, loss, rate, time left and the last validation."""

from __future__ import annotations

import logging

import pytest

from synthoma.learning import display
from synthoma.learning.display import show_training


def test_a_log_gets_lines_at_validations_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with show_training("train", 30, before=10) as show:
        show(12, {"loss": 0.51234, "rate": 3e-4})
        show(20, {"lesion_dsc": 0.61, "lesion_sensitivity": float("nan")})
        show(25, {"loss": 0.4, "rate": 1e-4})
        show(30, {"loss": 0.3, "rate": 0.0})
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("train: step 20 of 30, loss 0.512, rate 0.0003, 0:00:00 left")
    assert "validation at step 20: lesion_dsc 0.61, lesion_sensitivity undefined" in first
    assert last.startswith("train: step 30 of 30, loss 0.3, rate 0, validation at step 20: lesion_dsc 0.61, lesion_")


def test_a_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 0.0, *[10.0] * 4, *[40.0] * 4])
    monkeypatch.setattr(display.time, "monotonic", lambda: next(now))
    with show_training("train", 30) as show:
        show(1, {"loss": 0.9, "rate": 1.0})
        show(2, {"loss": 0.8, "rate": 1.0})
        show(3, {"loss": 0.7, "rate": 1.0})
        show(4, {"loss": 0.6, "rate": 1.0})
        show(5, {"loss": 0.5, "rate": 1.0})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train: step 5 of 30, loss 0.5")
    assert line.endswith("0:03:20 left")


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with show_training("train", 30) as show:
        show(30, {"loss": 0.3, "rate": 0.001})
    said = capsys.readouterr().err
    assert "30/30" in said
    assert "loss 0.3, rate 0.001" in said


@pytest.mark.parametrize(("title", "level"), [("", logging.WARNING), ("train", logging.ERROR)])
def test_without_a_title_or_when_quiet_nothing_is_said(
    title: str, level: int, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(level, display.log.name), show_training(title, 30) as show:
        show(30, {"loss": 0.3})
    assert capsys.readouterr().err == ""
