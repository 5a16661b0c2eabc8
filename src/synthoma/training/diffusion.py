"""A generator by rectified flow: the velocity from noise to the tissue of real lesions; reads from top to bottom."""

from __future__ import annotations

import time

import torch

from synthoma.learning.crops import LesionCrops
from synthoma.learning.flow import LEVELS, path, velocity
from synthoma.learning.loop import (
    Learner,
    Team,
    averaged,
    choose_precision,
    make_optimizer,
    memory_advice,
    rate_at,
    stop_requests,
)
from synthoma.learning.metrics import Metrics
from synthoma.learning.tissue import TissueModel, TissueNetwork, surroundings
from synthoma.runs import Run
from synthoma.seeds import rng_for
from synthoma.training.batches import Batch, LesionBatches, noise_like, stream
from synthoma.training.progress import PICTURES, require_finite, show_lesions
from synthoma.training.recipe import DiffusionRecipe

CHECKPOINT = "checkpoint.safetensors"


def train_diffusion(
    recipe: DiffusionRecipe, crops: LesionCrops, chosen: list[int], run: Run | None, team: Team, seed: int, workers: int
) -> TissueModel:
    """The trained network with its spec, without looks and record; resumes at the run folder's last checkpoint.

    chosen: the lesions to learn from. Interrupted by a signal it saves, and raises `KeyboardInterrupt`. Raises
    `RunError` if the loss is not finite (the batch is written beside the checkpoint), or memory is short.
    """
    torch.manual_seed(seed)
    spec = recipe.spec(crops.organs)
    net = TissueNetwork(recipe.network).to(team.device)
    precision = choose_precision(recipe.precision, team.device)
    scaler = torch.amp.GradScaler(team.device.type, enabled=precision == torch.float16)
    average = averaged(net, recipe.average) if recipe.average else None
    learner = Learner(net, make_optimizer(net, recipe.optimizer), scaler, average)
    judged = net if average is None else average.module
    folder = run.folder if run else None
    if folder and (folder / CHECKPOINT).exists():
        learner.restore(folder / CHECKPOINT)
    batches = LesionBatches(crops, tuple(chosen), recipe.batch, seed)
    advice = "lower batch or crops.size, or take a smaller network"
    with (
        Metrics(run, learner.step, recipe.tensorboard) as metrics,
        stop_requests() as stop,
        memory_advice(advice),
    ):
        since = time.perf_counter()
        for batch in stream(batches, learner.step, recipe.steps, workers):
            for group in learner.optimizer.param_groups:
                group["lr"] = rate_at(learner.step, recipe.steps, recipe.optimizer)
            net.train()
            learner.optimizer.zero_grad(set_to_none=True)
            with torch.autocast(team.device.type, precision, enabled=precision != torch.float32):
                loss = flow_loss(net, batch, team.device, seed, learner.step)
            learner.scaler.scale(loss).backward()
            learner.scaler.unscale_(learner.optimizer)
            if recipe.optimizer.clip:
                torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.optimizer.clip)
            figures = require_finite({"loss": loss}, learner.step + 1, batch, folder)
            learner.scaler.step(learner.optimizer)
            learner.scaler.update()
            if average is not None:
                average.update_parameters(net)
            learner.step += 1

            ending = learner.step == recipe.steps
            if learner.step % recipe.log_every == 0 or ending:
                seconds = time.perf_counter() - since
                metrics.log(learner.step, {**figures, "rate": group["lr"], "seconds": seconds})
            if folder and recipe.pictures_every and (ending or learner.step % recipe.pictures_every == 0):
                picture = folder / PICTURES / f"step_{learner.step:06d}.png"
                show_lesions(judged, spec, crops, chosen, picture, team.device)
            if folder and (stop.wanted or ending or learner.step % recipe.checkpoint_every == 0):
                learner.save(folder / CHECKPOINT, {})
            if stop.wanted:
                raise KeyboardInterrupt
            since = time.perf_counter()
    return TissueModel(judged.eval(), spec, batches.looks())


def flow_loss(net: torch.nn.Module, batch: Batch, device: torch.device, seed: int, step: int) -> torch.Tensor:
    """Squared error of the velocity inside the lesions and their borders, every lesion of the batch alike."""
    alpha, data = batch["alpha"].to(device), batch["tissue"].to(device)
    support = (alpha > 0).to(alpha.dtype)
    times = torch.from_numpy(rng_for(seed, "times", step).integers(1, LEVELS + 1, len(alpha))).to(device)
    at, wanted = path(data, noise_like(alpha, seed, "noise", step), times)
    around = surroundings(batch["hu"].to(device), alpha, batch["base"].to(device))
    guess = net(torch.cat([at * support, alpha, around], 1), times, batch["condition"].to(device))
    error = velocity(guess, at, times) - wanted
    # a voxel that is mostly something else says little about the lesion
    weight = alpha.clamp(0, 1)
    errors = (weight * error.square()).sum((1, 2, 3, 4)) / weight.sum((1, 2, 3, 4)).clamp(min=1e-3)
    return errors.mean()
