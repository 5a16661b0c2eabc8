"""`synthoma train` as a user runs it: killed and started again, and on two processes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from ill import scan

from synthoma import files
from synthoma.datasets.writing import write_case
from synthoma.learning.loop import read_tensors

RECIPE = """
steps = 12
log_every = 1
checkpoint_every = 3
validation = 0
average = 0.9
tensorboard = false
network = {width = 4, depth = 3}
optimizer = {rate = 0.03, warmup = 5}
patches = {size = [16, 16, 16], spacing_mm = 4.0, per_epoch = 8}
synthesis = {probability = 0.7}
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small cases in `data`, a recipe, and a run that nobody disturbed in `whole`."""
    folder = tmp_path_factory.mktemp("train")
    for case in (scan("ill", 40.0), scan("healthy")):
        write_case(case, folder / "data" / case.id)
    (folder / "recipe.toml").write_text(RECIPE)
    command(folder, "whole").check_returncode()
    return folder


def words(out: str, *more: str) -> list[str]:
    return ["-m", "synthoma", "train", "recipe.toml", "--data", "data", "--out", out, "--device", "cpu", *more]


def command(work: Path, out: str, *more: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, *launcher, *words(out, *more)]
    return subprocess.run(line, cwd=work, capture_output=True, text=True, check=False, timeout=240)


def weights(work: Path, out: str) -> dict[str, torch.Tensor]:
    return read_tensors(work / out / "model.safetensors")[0]


# The command, held before its eighth step until somebody says go: whatever is done to it meets it there.
HELD = """
import sys, time
from pathlib import Path
from synthoma.__main__ import main
from synthoma.segmentation import train

rate_at, held, go = train.rate_at, Path(sys.argv[1] + ".held"), Path(sys.argv[1] + ".go")

def wait(step, *rest):
    if step == 7:
        held.touch()
        while not go.exists():
            time.sleep(0.01)
    return rate_at(step, *rest)

train.rate_at = wait
sys.argv[1:2] = []
main()
"""


def start_held(work: Path, out: str) -> subprocess.Popen[str]:
    """The command, when it has done seven steps."""
    line = [sys.executable, "-c", HELD, out, *words(out)[2:]]
    process = subprocess.Popen(line, cwd=work, stderr=subprocess.PIPE, text=True)
    while not (work / f"{out}.held").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return process


def test_killed_at_any_moment_it_ends_with_the_same_weights(work: Path) -> None:
    process = start_held(work, "killed")
    process.kill()
    process.communicate()
    assert not (work / "killed/model.safetensors").exists()
    command(work, "killed").check_returncode()
    assert (work / "killed/metrics.jsonl").read_bytes().count(b"\n") == 12
    whole, resumed = weights(work, "whole"), weights(work, "killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_scheduler_can_stop_it_and_run_it_again(work: Path) -> None:
    process = start_held(work, "stopped")
    process.send_signal(signal.SIGUSR1)
    (work / "stopped.go").touch()
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "run the same command again to resume" in said
    about = json.loads(read_tensors(work / "stopped/checkpoint.safetensors")[1]["state"])
    assert about["step"] == 8


@pytest.mark.slow
@pytest.mark.timeout(900)  # three processes that wait for one another, on a machine that may be busy
def test_two_processes_learn_what_one_with_twice_the_batch_learns_also_when_killed(work: Path) -> None:
    # not Adam: it makes steps of full size of gradients that are nothing but rounding (biases before a norm)
    more = ("--set", "steps=4", "--set", "optimizer={name='sgd', rate=0.05, momentum=0.9, warmup=0}")
    one = command(work, "one", "--set", "batch=2", *more)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = command(work, "two", "--set", "batch=1", *more, launcher=launcher)
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    line = [sys.executable, *launcher, *words("killed_two", "--set", "batch=1", "--set", "checkpoint_every=1", *more)]
    process = subprocess.Popen(line, cwd=work, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (work / "killed_two/checkpoint.safetensors").exists():
        time.sleep(0.01)
    os.kill(json.loads((work / "killed_two/.lock").read_text())["pid"], signal.SIGKILL)
    assert process.wait() != 0
    resumed = command(work, "killed_two", "--set", "batch=1", "--set", "checkpoint_every=1", *more, launcher=launcher)
    assert resumed.returncode == 0, resumed.stderr
    first, second, third = (weights(work, out) for out in ("one", "two", "killed_two"))
    assert all(torch.equal(second[name], third[name]) for name in second)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4, msg=name)


def test_what_was_trained_segments_and_is_scored(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run(work, monkeypatch, "segment", "whole", "data", "--out", "found", "--set", "with_scan=true")
    assert "2 cases done, 0 failed" in said.out
    assert "liver, liver_lesion; the first of 2 cases: at most about" in said.err
    for name in ("liver", "liver_lesion"):
        mask = files.read_labels(work / f"found/ill/segmentations/{name}.nii.gz")
        assert mask.geometry.matches(scan("ill").read_geometry())
    assert "2 cases done, 0 failed" in run(work, monkeypatch, "evaluate", "data", "found", "--out", "scores").out
    assert (work / "scores/report.html").exists()


def test_a_model_is_handed_on(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(work, monkeypatch, "export", "whole", "--to", "safetensors", "--out", "given.safetensors")
    given = read_tensors(work / "given.safetensors")[0]
    assert all(torch.equal(given[name], weight) for name, weight in weights(work, "whole").items())


class Said(NamedTuple):
    out: str
    err: str


def run(work: Path, monkeypatch: pytest.MonkeyPatch, *line: str, code: int = 0) -> Said:
    """The command in this process."""
    from synthoma.cli.main import run as run_command

    monkeypatch.chdir(work)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the test's own handlers stay
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        run_command(line)
    assert (end.value.code or 0) == code, err.getvalue()
    return Said(out.getvalue(), err.getvalue())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "validation=0.5", "--set", "organs=['colon']"], "the colon"),
        (["--set", "network.name=vgg"], "no such network"),
        (["--set", "synthesis.organs=['pancreas']"], "which are not learned"),
        (["--set", "synthesis.size=3"], "unknown key size"),
        (["--splits", "none.json"], "no file none.json"),
        (["--set", "steps=11"], "steps: 12 here, 11 asked"),
    ],
)
def test_a_bad_request_is_one_sentence(work: Path, more: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = words("whole" if "steps=11" in more else "bad", *more)[2:]
    assert said in run(work, monkeypatch, *line, code=2).err
