"""The parts of the loop: rates, averages, checkpoints that nothing can hide code in, signals, devices."""

from __future__ import annotations

import json
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from synthoma.errors import FileError, RunError
from synthoma.learning.loop import (
    PATIENCE,
    Learner,
    OptimizerRecipe,
    averaged,
    choose_device,
    choose_precision,
    make_optimizer,
    memory_advice,
    open_team,
    random_state,
    rate_at,
    read_tensors,
    stop_requests,
    write_tensors,
)
from synthoma.learning.metrics import Metrics
from synthoma.recipe import Recipe
from synthoma.runs import open_run


def make_learner(name: str = "adamw", width: int = 4, decay: float = 0.9) -> Learner:
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Conv3d(1, width, 3), torch.nn.InstanceNorm3d(width, affine=True))
    recipe = OptimizerRecipe(name=name)  # type: ignore[arg-type]
    return Learner(net, make_optimizer(net, recipe), torch.amp.GradScaler("cpu", enabled=False), averaged(net, decay))


def take_steps(learner: Learner, count: int) -> None:
    for _ in range(count):
        learner.optimizer.zero_grad()
        learner.net(torch.rand(1, 1, 6, 6, 6)).square().mean().backward()
        learner.optimizer.step()
        assert learner.average is not None
        learner.average.update_parameters(learner.net)
        learner.step += 1


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    recipe = OptimizerRecipe(rate=1.0, warmup=10)
    rates = [rate_at(step, 100, recipe) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert max(rates) == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[-1] < 0.001
    assert rate_at(50, 100, recipe.with_changes(schedule="constant")) == 1.0
    assert rate_at(55, 100, recipe.with_changes(schedule="poly")) == pytest.approx(0.5**0.9)


def test_norms_and_biases_do_not_decay() -> None:
    decaying, others = make_learner().optimizer.param_groups
    assert (len(decaying["params"]), len(others["params"])) == (1, 3)
    assert decaying["weight_decay"] > 0 == others["weight_decay"]


def test_the_average_follows_at_once_and_then_slowly() -> None:
    net = torch.nn.Linear(1, 1, bias=False)
    average = averaged(net, 0.99)
    values = []
    for value in [0.0, *[1.0] * 400]:
        torch.nn.init.constant_(net.weight, value)
        average.update_parameters(net)
        values.append(average.module.weight.item())
    assert values[0] == 0
    assert values[10] > 0.9  # a fixed decay of 0.99 would be at 0.1
    average.module.weight.data.zero_()
    average.update_parameters(net)
    assert average.module.weight.item() < 0.05


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_restored_learner_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    first = make_learner(name)
    take_steps(first, 3)
    first.save(tmp_path / "checkpoint.safetensors", {"score": 0.25})
    take_steps(first, 3)
    second = make_learner(name)
    assert second.restore(tmp_path / "checkpoint.safetensors") == {"score": 0.25}
    assert second.step == 3
    take_steps(second, 3)
    assert first.average is not None
    assert second.average is not None
    for one, other in ((first.net, second.net), (first.average, second.average)):
        for name_, weight in one.state_dict().items():
            assert torch.equal(weight, other.state_dict()[name_]), name_


def test_another_networks_checkpoint_is_refused(tmp_path: Path) -> None:
    make_learner(width=4).save(tmp_path / "checkpoint.safetensors", {})
    with pytest.raises(FileError, match="another network"):
        make_learner(width=5).restore(tmp_path / "checkpoint.safetensors")


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "marker")))
    with pytest.raises(FileError, match="not a whole safetensors file"):
        make_learner().restore(path)
    assert not (tmp_path / "marker").exists()


def test_half_a_checkpoint_and_a_strangers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    make_learner().save(path, {})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileError, match="not a whole"):
        read_tensors(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(FileError, match="no checkpoint"):
        make_learner().restore(path)


def test_a_checkpoint_that_changed_on_the_disk_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    make_learner().save(path, {})
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileError, match=r"is damaged.*remove it"):
        make_learner().restore(path)


@pytest.mark.parametrize("state", ["{", "[]", '{"step": 3}', '{"step": "x", "facts": 1, "scaler": {}, "plain": {}}'])
def test_a_checkpoint_with_a_strange_state_is_one_sentence(tmp_path: Path, state: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    make_learner().save(path, {})
    write_tensors(path, read_tensors(path)[0], {"state": state})
    with pytest.raises(FileError, match="or damaged"):
        make_learner().restore(path)


def test_every_process_goes_on_with_its_own_random_numbers(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    states, expected = [], []
    for rank in range(2):
        torch.manual_seed(10 + rank)
        states.append(random_state())
        expected.append(torch.rand(3))
    make_learner().save(path, {}, states)
    for rank in range(2):
        make_learner().restore(path, rank)
        assert torch.equal(torch.rand(3), expected[rank])
    torch.manual_seed(99)
    make_learner()  # seeds with 1
    kept = random_state()["cpu"]
    make_learner().restore(path, rank=2)
    assert torch.equal(torch.get_rng_state(), kept)


def test_a_team_waits_longer_than_gradients_do(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    distributed = torch.distributed
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(distributed, "init_process_group", lambda *words, **_: calls.append(("init", words)))
    monkeypatch.setattr(distributed, "new_group", lambda **how: calls.append(("group", how)) or "patient")
    monkeypatch.setattr(distributed, "barrier", lambda group: calls.append(("wait", group)))
    monkeypatch.setattr(
        distributed, "all_gather_object", lambda found, data, group: calls.append(("gather", group)) or None
    )
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    with open_team("cpu") as team:
        team.wait()
        team.gather(1)
    assert calls[1] == ("group", {"backend": "gloo", "timeout": PATIENCE})
    assert calls[2:] == [("wait", "patient"), ("gather", "patient")]
    assert PATIENCE.days >= 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_a_request_and_the_second_one_an_end(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_requests() as stop:
        assert not stop.wanted
        signal.raise_signal(number)
        assert stop.wanted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there_is_refused_with_the_way_out() -> None:
    with pytest.raises(RunError, match="--device cpu"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"
    assert choose_precision("auto", choose_device("cpu")) == torch.float32


@pytest.mark.parametrize(
    ("known", "asked", "said"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "bf16", True),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": True}, "bf16", False),
        ({"avx2": True, "avx512_bf16": True}, "fp16", True),
        ({"avx2": True}, "fp32", False),
        ({"avx2": True}, "auto", False),
        ({}, "bf16", False),
    ],
)
def test_arithmetic_that_the_cpu_only_imitates_is_said_to_be_slow(
    known: dict[str, bool], asked: Any, said: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    choose_precision(asked, torch.device("cpu"))
    assert (f"imitates {asked}" in caplog.text) == said


def test_a_device_nobody_knows_is_refused() -> None:
    with pytest.raises(RunError, match="auto, cpu, cuda"):
        choose_device("toaster")


def test_a_process_alone_is_a_team() -> None:
    with open_team("cpu") as team:
        team.wait()
        assert team.is_rank_0
        assert team.gather(3) == [3]
        assert team.any(True)
        assert not team.any(False)


def test_lack_of_memory_says_what_to_lower() -> None:
    with pytest.raises(RunError, match="lower batch"), memory_advice("lower batch"):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
    with pytest.raises(RuntimeError, match="shapes"), memory_advice("lower batch"):
        raise RuntimeError("shapes differ")


def test_metrics_of_steps_after_the_checkpoint_are_written_again(tmp_path: Path) -> None:
    def lines() -> list[dict[str, float]]:
        return [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]

    with open_run(tmp_path / "run", "train", Recipe()) as run, Metrics(run, 0, tensorboard=False) as metrics:
        for step in (1, 2, 3):
            metrics.log(step, {"loss": step, "dsc": float("nan")})
    with open_run(tmp_path / "run", "train", Recipe()) as run, Metrics(run, 2, tensorboard=True) as metrics:
        assert [line["step"] for line in lines()] == [1, 2]
        metrics.log(3, {"loss": 30.0})
    assert lines()[0] == {"step": 1, "loss": 1.0, "dsc": None}
    assert lines()[-1] == {"step": 3, "loss": 30.0}
    (events,) = (tmp_path / "run/tensorboard").iterdir()
    assert events.name == "events.out.tfevents.0000000002"


def test_the_board_holds_curves_and_pictures_and_names_no_host(tmp_path: Path) -> None:
    import socket

    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (30, 20), (200, 10, 10)).save(tmp_path / "patches.png")
    for begun, steps in ((0, (1, 2, 3)), (2, (3,))):  # killed after step 3, resumed at step 2
        with (
            open_run(tmp_path / "run", "train", Recipe()) as run,
            Metrics(run, begun, tensorboard=True) as metrics,
        ):
            for step in steps:
                metrics.log(step, {"dice_loss_liver": step + begun, "undefined": float("nan")})
                metrics.picture(step, "patches", tmp_path / "patches.png")
    board = EventAccumulator(str(tmp_path / "run/tensorboard"))
    board.Reload()
    assert [(point.step, point.value) for point in board.Scalars("dice_loss_liver")] == [(1, 1), (2, 2), (3, 5)]
    (*_, picture) = board.Images("patches")
    assert (picture.width, picture.height, picture.step) == (30, 20, 3)
    for path in (tmp_path / "run/tensorboard").iterdir():
        assert socket.gethostname().encode() not in path.name.encode() + path.read_bytes()
