"""The command's frame: help, version, interrupts, closed pipes, full disks, names that look like markup."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from synthoma.cli.app import say_once, table

PACKAGE = Path(__file__).parents[1] / "src" / "synthoma"
SYNTHOMA = [sys.executable, "-m", "synthoma"]


def synthoma(*words: object, cwd: Path, **how: object) -> subprocess.CompletedProcess[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
    return subprocess.run([*SYNTHOMA, *map(str, words)], cwd=cwd, text=True, timeout=120, check=False, **streams)


def test_version_and_help_have_their_short_names(tmp_path: Path) -> None:
    assert re.fullmatch(r"synthoma \d+\.\d+\.\d+\n", synthoma("--version", cwd=tmp_path).stdout)
    shown = synthoma("evaluate", "-h", cwd=tmp_path)
    assert shown.returncode == 0
    for option in ("--timeout", "--allow-failures", "--workers"):
        assert option in shown.stdout


def test_completion_of_the_shell_knows_the_commands(tmp_path: Path) -> None:
    asked = {"_SYNTHOMA_COMPLETE": "complete_bash", "COMP_WORDS": "synthoma ev", "COMP_CWORD": "1"}
    answer = synthoma(cwd=tmp_path, env={**os.environ, **asked})
    assert "evaluate" in answer.stdout


def test_code_in_the_working_folder_is_not_run(tmp_path: Path) -> None:
    for name in ("numpy", "pickle", "typer", "cc3d"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the working folder')")
    shown = synthoma("info", cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    made = synthoma("cohort", "one", "--out", "made", "--set", "spacing_mm=10", "--workers", 2, cwd=tmp_path)
    assert "of the working folder" not in made.stdout + made.stderr
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize("moment", ["importing", "beginning", "working"])
def test_ctrl_c_at_any_moment_is_one_line(tmp_path: Path, moment: str) -> None:
    command = [sys.executable, "-X", "importtime", *SYNTHOMA[1:], "cohort", "demo", "--out", "made", "--workers", "2"]
    command += ["--set", "spacing_mm=8"]
    running = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background jobs ignore it
    )  # fmt: skip
    assert running.stderr is not None
    said = []
    while moment == "importing" and "synthoma.errors" not in (said or [""])[-1]:
        said.append(running.stderr.readline())
    file = tmp_path / "made" / "run.json"
    reader = threading.Thread(target=lambda: said.extend(running.stderr or ()))
    reader.start()
    end = time.monotonic() + 60
    while moment != "importing" and not file.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(1.5 if moment == "working" else 0)  # the workers start
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    assert running.wait(60) == 130
    reader.join()
    lines = [line for line in said if not line.startswith(("import time:", "cohort: "))]
    assert lines == ["synthoma: interrupted; run the same command again to resume\n"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_standard_output_is_a_sentence_and_a_closed_one_is_silence(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        told = synthoma("info", cwd=tmp_path, stdout=full)
    assert told.returncode == 2
    assert told.stderr == "synthoma: cannot write to standard output; found No space left on device\n"
    read, write = os.pipe()
    os.close(read)
    told = synthoma("info", cwd=tmp_path, stdout=write)
    os.close(write)
    assert (told.returncode, told.stderr) == (1, "")


def test_names_that_look_like_markup_or_are_no_text_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table([{"case": "[red]x[/blue]", "code": "[bold"}], ("case", "code"))
    assert "[red]x[/blue]" in capsys.readouterr().out
    name = os.fsdecode(b"lum\xe8re[/]")
    told = synthoma("validate", name, cwd=tmp_path)
    assert told.returncode == 2
    assert r"lum\udce8re[/]" in told.stderr
    assert "Traceback" not in told.stderr


def test_what_differs_in_names_and_numbers_only_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = [(f"c{n}", f"CaseError: c{n}: {n} voxels; found /data/c{n}/ct.nii.gz") for n in range(9)]
    say_once([*told, ("d", "FileError: d: no file"), ("", "a link to nowhere")])
    assert capsys.readouterr().err.splitlines() == [
        "9 cases (c0, c1, c2, c3, c4 and 4 more): CaseError: 0 voxels; found /data/c0/ct.nii.gz",
        "FileError: d: no file",
        "a link to nowhere",
    ]


DANGERS = {
    r"\bpickle\.loads?\(": ("engine/processes.py",),  # from our own pipe to our own process
    r"allow_pickle\s*=\s*True": (),
    r"torch\.load\((?!.*weights_only=True)": (),
    r"(?<![\w.])(eval|exec)\(": (),
    r"yaml\.(unsafe_)?load\(": (),
    r"shell\s*=\s*True|os\.system\(": (),
    r"\bmarshal\b|\bshelve\b|\bdill\b|\bjoblib\b": (),
}


@pytest.mark.parametrize("danger", DANGERS)
def test_no_code_comes_out_of_a_file(danger: str) -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(danger, line)
    }
    assert found <= set(DANGERS[danger])
