"""A generator against a discriminator: fake lesions in real scans, told from real ones; reads from top to bottom."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from synthoma.disk import atomic_folder
from synthoma.learning.crops import LesionCrops
from synthoma.learning.looks import BIN_HU, BINS
from synthoma.learning.loop import Learner, Team, averaged, memory_advice, stop_requests
from synthoma.learning.metrics import Metrics
from synthoma.learning.networks import build_network
from synthoma.learning.tissue import GeneratorSpec, TissueModel, TissueNetwork, leveled, surroundings, tissue_field
from synthoma.runs import Run
from synthoma.training.batches import Batch, LesionBatches, noise_like, stream
from synthoma.training.hosts import Hosts
from synthoma.training.progress import PICTURES, require_finite, show_lesions
from synthoma.training.recipe import AdversarialRecipe

CHECKPOINT = "checkpoint"  # a folder CHECKPOINT-STEP: both networks as they were at one step
GENERATOR_STATE, DISCRIMINATOR_STATE = "generator.safetensors", "discriminator.safetensors"
BACKGROUND, REAL, FAKE, UNKNOWN = 0, 1, 2, 255
_BACKGROUND_WEIGHT = 0.1  # most voxels are neither
_SHELL_HU = 10.0  # of the unit in which rim and core are compared

# scans in HU (B, 1, S, S, S) and the organs' names -> probability of a tumor, likewise
Critic = Callable[[torch.Tensor, list[str]], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Batches of real lesions and of places for fake ones, step by step."""

    lesions: LesionBatches
    hosts: Hosts

    def __call__(self, step: int) -> Batch:
        real, host = self.lesions(step), self.hosts(step)
        return {
            **{f"real_{name}": data for name, data in real.items()},
            **{f"host_{name}": data for name, data in host.items()},
            "case": [*real["case"], *host["case"]],
        }


def train_adversarial(
    recipe: AdversarialRecipe,
    crops: LesionCrops,
    chosen: list[int],
    hosts: Hosts,
    critic: Critic | None,
    run: Run | None,
    team: Team,
    seed: int,
    workers: int,
) -> TissueModel:
    """The trained network with its spec and looks; resumes at the run folder's last checkpoint.

    chosen: the lesions to learn from. critic: what fakes are to be taken for tumors by; None for none. Interrupted by
    a signal it saves, and raises `KeyboardInterrupt`. Raises `RunError` if a loss is not finite (the batch is written
    beside the checkpoint), or memory is short.
    """
    torch.manual_seed(seed)
    spec = recipe.spec(crops.organs)
    net = TissueNetwork(recipe.network).to(team.device)
    judge = build_network(recipe.discriminator, 3).to(team.device)
    average = averaged(net, recipe.average) if recipe.average else None
    maker = Learner(net, _adam(net, recipe.generator_rate), torch.amp.GradScaler(enabled=False), average)
    teller = Learner(judge, _adam(judge, recipe.discriminator_rate), torch.amp.GradScaler(enabled=False))
    shown = net if average is None else average.module
    folder = run.folder if run else None
    if latest := _latest(folder):
        maker.restore(latest / GENERATOR_STATE)
        teller.restore(latest / DISCRIMINATOR_STATE)
    batches = Pairs(LesionBatches(crops, tuple(chosen), recipe.batch, seed), hosts)
    advice = "lower batch or crops.size, or take a smaller network"
    with (
        Metrics(run, maker.step, recipe.tensorboard) as metrics,
        stop_requests() as stop,
        memory_advice(advice),
    ):
        since = time.perf_counter()
        for batch in stream(batches, maker.step, recipe.steps, workers):
            batch = _on(batch, team.device)
            net.train()
            judge.train()
            noise = noise_like(batch["host_alpha"], seed, "noise", maker.step)

            # the generator's step: nothing of it reaches the discriminator
            judge.requires_grad_(False)
            maker.optimizer.zero_grad(set_to_none=True)
            fakes, residual = fake_scans(net, spec, batch, noise)
            loss, terms = generator_loss(judge, critic, fakes, residual, batch, recipe)
            loss.backward()
            figures = require_finite({"loss": loss, **terms}, maker.step + 1, batch, folder)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            maker.optimizer.step()
            if average is not None:
                average.update_parameters(net)

            # the discriminator's step, on the same fakes: nothing of it reaches the generator
            judge.requires_grad_(True)
            if maker.step % recipe.discriminator_every == 0:
                teller.optimizer.zero_grad(set_to_none=True)
                told, right = discriminator_loss(judge, fakes.detach(), batch, recipe)
                told.backward()
                figures |= require_finite({"discriminator": told, "told_right": right}, maker.step + 1, batch, folder)
                torch.nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
                teller.optimizer.step()
            maker.step += 1
            teller.step = maker.step

            ending = maker.step == recipe.steps
            if maker.step % recipe.log_every == 0 or ending:
                metrics.log(maker.step, {**figures, "seconds": time.perf_counter() - since})
            if folder and recipe.pictures_every and (ending or maker.step % recipe.pictures_every == 0):
                picture = folder / PICTURES / f"step_{maker.step:06d}.png"
                show_lesions(shown, spec, crops, chosen, picture, team.device)
            if folder and (stop.wanted or ending or maker.step % recipe.checkpoint_every == 0):
                _save(maker, teller, folder)
            if stop.wanted:
                raise KeyboardInterrupt
            since = time.perf_counter()
    return TissueModel(shown.eval(), spec, batches.lesions.looks())


def fake_scans(
    net: torch.nn.Module, spec: GeneratorSpec, batch: Batch, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Host crops with fake lesions, in HU, and their tissue around its mean; both (B, 1, S, S, S).

    The mean away from the border is that of the plan, as when a tumor is rendered.
    """
    alpha = batch["host_alpha"]
    around = surroundings(batch["host_hu"], alpha, batch["host_base"])
    field = tissue_field(net, spec, noise, alpha, around, batch["host_condition"])
    field = leveled(field, alpha, batch["host_trend"])  # as when a tumor is rendered
    core = torch.where((alpha > 0.95).sum((1, 2, 3, 4), keepdim=True) > 0, alpha > 0.95, alpha >= 0.5).to(alpha.dtype)
    residual = field - _mean(field, core).view(-1, 1, 1, 1, 1)
    tissue = residual + (batch["host_base"] + batch["host_contrast"]).view(-1, 1, 1, 1, 1)
    return batch["host_start"] + alpha * tissue, residual


def generator_loss(
    judge: torch.nn.Module,
    critic: Critic | None,
    fakes: torch.Tensor,
    residual: torch.Tensor,
    batch: Batch,
    recipe: AdversarialRecipe,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What the generator is to lower, and its terms: realism, the critic's, and likeness to what was asked for."""
    inside = batch["host_mask"].to(fakes.dtype)
    said = functional.log_softmax(judge(windowed(fakes, recipe.window_hu)), 1)
    terms = {"realism": -_mean(said[:, REAL : REAL + 1], inside).mean()}
    if critic is not None:
        terms["critic"] = 1 - _mean(critic(fakes, batch["host_organ"]), inside).mean()
    terms["look"] = look_loss(residual, batch["host_mask"], batch["host_depth"], batch["host_wanted"])
    weights = {"realism": recipe.realism, "critic": recipe.critic, "look": recipe.look}
    total = sum((weights[name] * term for name, term in terms.items()), torch.zeros((), device=fakes.device))
    return total, terms


def discriminator_loss(
    judge: torch.nn.Module, fakes: torch.Tensor, batch: Batch, recipe: AdversarialRecipe
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy over background, real and fake lesions, and the share of lesions' voxels that it tells right.

    Other real lesions in a fake's crop are left out; those in a real lesion's crop are real too.
    """
    scans = windowed(torch.cat([batch["real_hu"], fakes]), recipe.window_hu)
    real = (batch["real_mask"] | batch["real_others"]).long() * REAL
    fake = batch["host_mask"].long() * FAKE
    fake[batch["host_others"] & ~batch["host_mask"]] = UNKNOWN
    wanted = torch.cat([real, fake])[:, 0]
    said = judge(scans)
    weights = torch.tensor([_BACKGROUND_WEIGHT, 1.0, 1.0], device=said.device)
    loss = functional.cross_entropy(said, wanted, weights, ignore_index=UNKNOWN, label_smoothing=recipe.smoothing)
    lesion = (wanted == REAL) | (wanted == FAKE)
    right = (said[:, REAL:].argmax(1) + REAL == wanted)[lesion].float().mean()
    return loss, right


def look_loss(residual: torch.Tensor, mask: torch.Tensor, depth: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How far tissue is from the rim, core and histogram (B, 2 + bins) that were asked for; 0 for none."""
    inside = mask.to(residual.dtype)
    at = (residual / BIN_HU + (BINS - 1) / 2).clamp(0, BINS - 1)
    bins = torch.arange(BINS, device=residual.device).view(1, -1, 1, 1, 1)
    shares = _mean((1 - (at - bins).abs()).clamp(min=0), inside)
    # cumulated: a voxel one bin off is a smaller fault than one five bins off
    histogram = (shares.cumsum(1) - wanted[:, 2:].cumsum(1)).abs().sum(1)
    mean = _mean(residual, inside)
    rim = _mean(residual, inside * (depth <= 0.25)) - mean
    core = _mean(residual, inside * (depth >= 0.6)) - mean
    shells = (torch.cat([rim, core], 1) - wanted[:, :2]).abs().sum(1) / _SHELL_HU
    return (histogram + 0.5 * shells).mean()


def windowed(hu: torch.Tensor, window_hu: tuple[float, float]) -> torch.Tensor:
    """HU as 0 ... 1 of a window, clipped."""
    low, high = window_hu
    return ((hu - low) / (high - low)).clamp(0, 1)


def _mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Of every channel where the weight is, (B, C); 0 where there is none."""
    return (values * weight).sum((2, 3, 4)) / weight.sum((2, 3, 4)).clamp(min=1e-3)


def _adam(net: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
    """Without momentum, as adversarial training wants it."""
    return torch.optim.Adam(net.parameters(), rate, betas=(0.0, 0.99))


def _on(batch: Batch, device: torch.device) -> Batch:
    return {name: data.to(device) if isinstance(data, torch.Tensor) else data for name, data in batch.items()}


def _save(maker: Learner, teller: Learner, folder: Path) -> None:
    """Both networks at one step; older checkpoints go when it is whole."""
    done = folder / f"{CHECKPOINT}-{maker.step:07d}"
    with atomic_folder(done) as part:
        maker.save(part / GENERATOR_STATE, {})
        teller.save(part / DISCRIMINATOR_STATE, {})
    for old in folder.glob(f"{CHECKPOINT}-*"):
        if old != done:
            shutil.rmtree(old)


def _latest(folder: Path | None) -> Path | None:
    return max(folder.glob(f"{CHECKPOINT}-*"), default=None) if folder else None
