"""What a training loop needs and its reader need not see: device, precision, rate, average, checkpoint, processes."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.optim.swa_utils import AveragedModel

from synthoma.disk import atomic
from synthoma.errors import FileError, RunError
from synthoma.recipe import Recipe

log = logging.getLogger(__name__)

Precision = Literal["auto", "fp32", "bf16", "fp16"]
CHECKSUM = "checksum"  # the entry of a file's header that tells the bytes of its tensors
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # what people and schedulers send before they kill
PATIENCE = timedelta(days=7)  # that processes of a team have for each other; a dead one is noticed at once
_WARMING = 10  # the average follows closely for about ten times as many steps as this


class OptimizerRecipe(Recipe):
    """How weights move.

    rate: the highest learning rate, reached after `warmup` steps and then lowered by the schedule: to 0 as half a
    cosine, or as (1 - progress)^0.9 (poly), or not at all. momentum: of SGD, with Nesterov. clip: the largest norm
    of a step's gradient; 0 does not clip.
    name: the rule that moves weights. weight_decay: pull of weights to 0. warmup: steps until the highest rate.
    schedule: how the rate falls after them.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    momentum: float = Field(0.99, ge=0, lt=1)
    warmup: int = Field(100, ge=0)
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    clip: float = Field(1.0, ge=0)


def make_optimizer(net: torch.nn.Module, recipe: OptimizerRecipe) -> torch.optim.Optimizer:
    """The optimizer of the recipe; biases and the scales of norms do not decay."""
    weights = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.name == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.rate)
    return torch.optim.SGD(groups, lr=recipe.rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def rate_at(step: int, steps: int, recipe: OptimizerRecipe) -> float:
    """The learning rate of step 0, 1, ... of `steps`."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, steps - recipe.warmup)
    if recipe.schedule == "cosine":
        return recipe.rate * 0.5 * (1 + math.cos(math.pi * progress))
    return float(recipe.rate * (1 - progress) ** 0.9) if recipe.schedule == "poly" else recipe.rate


def averaged(net: torch.nn.Module, decay: float) -> AveragedModel:
    """A copy of the network that holds the exponential average of its weights, quicker in the first steps."""

    def follow(average: list[torch.Tensor], now: list[torch.Tensor], count: torch.Tensor | int) -> None:
        share = min(decay, (1 + int(count)) / (_WARMING + int(count)))
        for mean, weight in zip(average, now, strict=True):
            if mean.is_floating_point():
                mean.lerp_(weight.to(mean.dtype), 1 - share)
            else:
                mean.copy_(weight)

    return AveragedModel(net, multi_avg_fn=follow, use_buffers=True)


@dataclass(frozen=True)
class Team:
    """The processes that train together, and this one's device. Alone: rank 0 of 1.

    group: through which they wait for each other and tell each other, on CPUs and with all the time they need: while
    the first one prepares cases, the others wait for hours. Gradients go through the default group, which does not.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def is_rank_0(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            torch.distributed.barrier(self.group)

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        return any(self.gather(flag)) if self.size > 1 else flag

    def gather(self, data: Any) -> list[Any]:
        """What every process gives, by rank."""
        if self.size == 1:
            return [data]
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, data, self.group)
        return found


@contextmanager
def open_team(device: str = "auto") -> Iterator[Team]:
    """The processes that torchrun started, joined while the block lasts; alone without torchrun."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = choose_device(device)
    if size == 1:
        yield Team(chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Team(chosen, rank, size, torch.distributed.new_group(backend="gloo", timeout=PATIENCE))
    finally:
        torch.distributed.destroy_process_group()


def choose_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA where there is one; `RunError` for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RunError(f"no device {name!r}", expected="auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RunError(
            "no CUDA device", found=f"torch {torch.__version__}", fix="--device cpu, or install a CUDA build of torch"
        )
    return device


def choose_precision(name: Precision, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on a GPU that has it and float32 elsewhere, so that all CPUs compute alike."""
    if name == "auto":
        name = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if device.type == "cpu" and name != "fp32" and not _has_instructions(name):
        log.warning("this CPU imitates %s, which can take ten times as long as fp32", name)
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def _has_instructions(name: Precision) -> bool:
    """Whether the CPU computes with such numbers itself; yes where torch cannot tell."""
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older ones have no such function
    return not known or any(there is True for key, there in known.items() if key.endswith(name))


class StopRequest:
    """Whether somebody asked the process to end. `wanted` is set by a signal, and read between two steps."""

    def __init__(self) -> None:
        self.wanted = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler: the second one ends the process at once."""
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Ctrl-C, SIGTERM and SIGUSR1 become a request while the block lasts; in other threads nothing changes."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def memory_advice(fix: str) -> Iterator[None]:
    """A block whose lack of memory becomes a `RunError` with this way out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunError("the GPU's memory is full", found=str(error).split(". ")[0], fix=fix) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        raise RunError("the memory is full", found=str(error)[:200], fix=fix) from error


@dataclass(eq=False)
class Learner:
    """Everything that changes while a network learns, and the step it has come to."""

    net: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None = None
    step: int = 0

    def save(
        self, path: Path | str, facts: Mapping[str, Any], states: Sequence[Mapping[str, torch.Tensor]] = ()
    ) -> None:
        """All of it in one safetensors file, whole or not at all; facts: JSON data that `restore` gives back.

        states: of the random generators of every process, by rank (`random_state`); this process's unless given.
        """
        plain: dict[str, Any] = {}
        tensors = {f"net.{name}": weight for name, weight in self.net.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": weight for name, weight in self.average.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            for name, value in entry.items():
                key = f"optimizer.{index}.{name}"
                if isinstance(value, torch.Tensor):
                    tensors[key] = value
                else:
                    plain[key] = value
        for rank, state in enumerate(states or [random_state()]):
            tensors |= {f"random.{rank}.{name}": value for name, value in state.items()}
        state = {"step": self.step, "scaler": self.scaler.state_dict(), "plain": plain, "facts": dict(facts)}
        write_tensors(path, tensors, {"state": json.dumps(state)})

    def restore(self, path: Path | str, rank: int = 0) -> dict[str, Any]:
        """Go on from a checkpoint, with the random generators of this rank; its facts.

        A rank that the checkpoint has no state of (more processes than before) keeps its own. Raises `FileError` if
        the file is damaged or another network's.
        """
        tensors, about = read_tensors(path)
        if "state" not in about:
            raise FileError(f"{path} is no checkpoint", fix="remove it to start again")
        try:
            state = json.loads(about["state"])
            step, facts, scaler, plain = int(state["step"]), dict(state["facts"]), state["scaler"], state["plain"]
            self.net.load_state_dict(_part(tensors, "net."))
            if self.average is not None:
                self.average.load_state_dict(_part(tensors, "average."))
            entries: dict[int, dict[str, Any]] = {}
            for key, value in {**_part(tensors, "optimizer."), **_part(plain, "optimizer.")}.items():
                index, _, name = key.partition(".")
                entries.setdefault(int(index), {})[name] = value
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": entries})
            self.scaler.load_state_dict(scaler)
            set_random_state(_part(tensors, f"random.{rank}."))
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(
                f"{path} is the checkpoint of another network, or damaged",
                found=" ".join(str(error).split())[:200],
                fix="choose another --out, or remove it to start again",
            ) from error
        self.step = step
        return facts


def random_state() -> dict[str, torch.Tensor]:
    """The states of this process's generators, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(states: Mapping[str, torch.Tensor]) -> None:
    """Go on with these states; a device that is not among them keeps its own."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def write_tensors(path: Path | str, tensors: Mapping[str, torch.Tensor], about: Mapping[str, str]) -> None:
    """Tensors and strings as one safetensors file, whole or not at all, with a checksum of the tensors."""
    # clone: safetensors refuses tensors that share memory, as an average without a step yet does
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic(path) as part:
        # save_file would keep the file from other users
        part.write_bytes(_in_order(save(plain, {**about, CHECKSUM: _checksum(plain)})))


def _in_order(file: bytes) -> bytes:
    """A safetensors file with the strings of its header in order: the library writes them in any."""
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[start:]


def read_tensors(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the strings of a safetensors file; `FileError` for anything else.

    Nothing is ever unpickled. The checksum is compared; a file without one was not written here, or long ago.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise FileError(
            f"{path} is not a whole safetensors file", found=str(error), fix="remove it, or restore it from a copy"
        ) from error
    if about.pop(CHECKSUM, None) not in (None, _checksum(tensors)):
        raise FileError(
            f"{path} is damaged", found="other weights than were written (by their checksum)",
            fix="remove it, or restore it from a copy",
        )  # fmt: skip
    return tensors, about


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    """32 hexadecimal digits that tell names, types, shapes and bytes."""
    whole = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        whole.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def _part(entries: Mapping[str, Any], start: str) -> dict[str, Any]:
    return {name.removeprefix(start): value for name, value in entries.items() if name.startswith(start)}
