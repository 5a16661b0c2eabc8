"""Progress on stderr: nothing, lines, or a bar."""

from __future__ import annotations

import pytest

from synthoma.engine import progress
from synthoma.engine.progress import show_progress


def go_through(title: str, total: int, done_before: int = 0) -> None:
    """Every third case fails."""
    with show_progress(title, total, done_before) as advance:
        for index in range(total - done_before):
            advance(index % 3 == 2)


def test_without_a_title_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    go_through("", 5)
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_few_lines_on_stderr_and_the_last_says_how_it_ended(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_through("drawing [one]", 10, done_before=4)
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("drawing [one]: 10 of 10, 4 before, ")
    assert line.endswith(" a second, 2 failed")
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    go_through("drawing", 4)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"drawing: {done} of 4" for done in (1, 2, 3, 4)]
    assert " left, 0 failed" in lines[0]
    assert lines[-1].endswith("1 failed")


def test_nothing_to_do_is_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    go_through("drawing", 3, done_before=3)
    assert capsys.readouterr().err == "drawing: 3 of 3, 3 before, 0 failed\n"


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    go_through("drawing", 6)
    shown = capsys.readouterr().err
    assert "6/6" in shown
    assert "━" in shown
    assert "2 failed" in shown
