"""Training: real tumors and synthetic ones, drawn anew in every epoch; the loop reads from top to bottom."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthoma import pictures
from synthoma.disk import write_json
from synthoma.errors import RunError
from synthoma.learning.display import Show, show_training
from synthoma.learning.entry import Entry
from synthoma.learning.loader import loader, steps_per_epoch
from synthoma.learning.loop import (
    Learner,
    Team,
    averaged,
    choose_precision,
    make_optimizer,
    memory_advice,
    random_state,
    rate_at,
    stop_requests,
    write_tensors,
)
from synthoma.learning.losses import loss
from synthoma.learning.metrics import Metrics
from synthoma.learning.models import MODEL, Model, load_model, save_model
from synthoma.learning.networks import build_network, count_parameters
from synthoma.learning.patches import Patches
from synthoma.runs import Run
from synthoma.seeds import seed_for
from synthoma.segmentation.preparation import TrainingData, prepare
from synthoma.segmentation.recipe import TrainRecipe
from synthoma.segmentation.validation import Score, compared, validate
from synthoma.volume import Geometry, Volume

log = logging.getLogger(__name__)

CHECKPOINT, BEST, PICTURES, BAD_BATCH = "checkpoint.safetensors", "best.safetensors", "pictures", "bad_batch"
LAYOUT = torch.channels_last_3d  # a fifth faster on CPUs too


def train(
    recipe: TrainRecipe,
    data: TrainingData,
    run: Run | None,
    team: Team,
    *,
    seed: int = 0,
    workers: int = 0,
    title: str = "",
) -> Model:
    """The trained model, also written to the run folder; a run that was interrupted goes on at its last checkpoint.

    run: the open run folder of the team's first process, None in the others. workers: processes that make patches;
    how many there are changes nothing but the speed. title: names the progress on stderr; without it there is none.

    Interrupted by a signal it saves, and raises `KeyboardInterrupt`. Raises what `prepare` raises if there is nothing
    to learn from, and `RunError` if the loss is not finite (the batch is written beside the checkpoint), memory is
    short, or the checkpoint is of other cases.
    """
    cases = prepare(recipe, data, workers, team)
    patches = Patches(cases.entries, recipe.patches, recipe.classes, data.augment, seed)
    log.info("%d cases to learn from, %d to validate on", len(cases.entries), len(cases.held))

    torch.manual_seed(seed)
    net = build_network(recipe.network, len(recipe.classes))
    if data.start is not None:
        net.load_state_dict(data.start.net.state_dict())
    if not team.is_rank_0:
        torch.manual_seed(seed_for(seed, "rank", team.rank) % 2**63)  # dropout of its own, weights alike
    net = net.to(team.device, memory_format=LAYOUT)
    precision = choose_precision(recipe.precision, team.device)
    learner = Learner(
        net,
        make_optimizer(net, recipe.optimizer),
        torch.amp.GradScaler(team.device.type, enabled=precision == torch.float16),
        averaged(net, recipe.average) if recipe.average else None,
    )
    judged = net if learner.average is None else learner.average.module
    origin = {"start": data.start.record} if data.start else {}
    model = Model(judged, recipe.spec(), {"recipe": recipe.as_dict(), "data": cases.as_dict(), **origin})
    log.info("%s of %s weights on %s", recipe.network.name, f"{count_parameters(net):,}", team.device)
    # every process reads what the first one wrote
    folder = team.gather(run and str(run.folder))[0]
    training = _Training(
        recipe, patches, cases.held, data.score, learner, model, precision, team, Path(folder) if folder else None
    )
    best = _resume(training)
    with (
        Metrics(run, learner.step, recipe.tensorboard) as metrics,
        show_training(title if team.is_rank_0 else "", recipe.steps, learner.step) as show,
        memory_advice("lower batch or patches.size, or take a smaller network"),
    ):
        best = _learn(training, best, metrics, show, workers)
    if recipe.patience and best["step"] is not None and training.folder:
        judged.load_state_dict(load_model(training.folder / BEST).net.state_dict())
    model = dataclasses.replace(model, record={**model.record, "steps": learner.step, "figures": best})
    if run:
        save_model(run.folder / MODEL, model)
    team.wait()
    return model


@dataclasses.dataclass(frozen=True, eq=False)
class _Training:
    """What the loop works with. model: what is validated and shown, with the average of the learner's weights.

    folder: of the run, which the first process writes; None without one.
    """

    recipe: TrainRecipe
    patches: Patches
    held: Sequence[Entry]
    score: Score | None
    learner: Learner
    model: Model
    precision: torch.dtype
    team: Team
    folder: Path | None

    @property
    def written(self) -> Path | None:
        """The run folder in the process that writes it."""
        return self.folder if self.team.is_rank_0 else None

    @property
    def cases(self) -> list[str]:
        """Ids of the cases that are learned from, and of those that are validated on."""
        return [entry.case for entry in (*self.patches.entries, *self.held)]


def _resume(training: _Training) -> dict[str, Any]:
    """The best score so far; the learner goes on at the last checkpoint, if there is one."""
    learner, folder = training.learner, training.folder
    best: dict[str, Any] = {"score": None, "step": None, "waited": 0, "ended": False, "latest": {}}
    if folder is None or not (folder / CHECKPOINT).exists():
        return best
    facts = learner.restore(folder / CHECKPOINT, training.team.rank)
    before = facts.get("cases", [])
    if before != training.cases:
        changed = sorted({*before} ^ {*training.cases})
        raise RunError(
            f"{folder} was begun with other cases",
            found=f"{len(training.cases)} instead of {len(before)}; different: {', '.join(changed[:5]) or 'the sides'}",
            fix="see that the same cases can be read, or choose another --out",
        )
    log.info("resumed at step %d", learner.step)
    best = facts["best"]
    if facts["steps"] < training.recipe.steps:  # more steps than before: what ended early goes on as well
        best = {**best, "waited": 0, "ended": False}
    return best


def _learn(training: _Training, best: dict[str, Any], metrics: Metrics, show: Show, workers: int) -> dict[str, Any]:
    """The steps that are left; the best score and the latest figures."""
    recipe, learner, team, folder = training.recipe, training.learner, training.team, training.written
    trained = _parallel(learner.net, recipe, team)
    epoch_steps = steps_per_epoch(training.patches, recipe.batch, team.size)
    epoch, first = divmod(learner.step, epoch_steps)
    done = best["ended"] or learner.step >= recipe.steps
    batches = loader(
        training.patches, epoch, first, recipe.batch, workers, team.rank, team.size,
        epochs=0 if done else -(-recipe.steps // epoch_steps) - epoch, device=team.device,
    )  # fmt: skip
    with stop_requests() as stop:
        unread: _Step | None = None
        shown: Mapping[str, Any] | None = None
        since = time.perf_counter()
        for batch in batches:
            waited = time.perf_counter() - since
            for group in learner.optimizer.param_groups:
                group["lr"] = rate_at(learner.step, recipe.steps, recipe.optimizer)
            total, terms = _step(training, trained, batch)
            shown = batch if shown is None or batch["target"][:, 1::2].any() else shown  # one with a tumor in it

            # the loss is read one step late, so that a GPU never waits for its reader
            _read(unread, folder)
            unread = _Step(learner.step, total, terms, batch)
            stopping = team.any(stop.wanted) if team.size == 1 or learner.step % recipe.log_every == 0 else False
            ending = learner.step == recipe.steps
            epoch_done = learner.step % epoch_steps == 0 or ending
            if learner.step % recipe.log_every == 0 or epoch_done:
                figures = _read(unread, folder)
                seconds = time.perf_counter() - since
                metrics.log(learner.step, {**figures, "rate": group["lr"], "seconds": seconds, "waited": waited})
                show(learner.step, {**figures, "rate": group["lr"]})
            if epoch_done:
                best = _after_epoch(training, -(-learner.step // epoch_steps), ending, shown, best, metrics, show)
                ending = ending or best["ended"]
            if stopping or ending or epoch_done or learner.step % recipe.checkpoint_every == 0:
                _read(unread, folder)
                _save(training, best)
            if stopping:
                raise KeyboardInterrupt
            if ending:
                break
            since = time.perf_counter()
    return best


def _save(training: _Training, best: Mapping[str, Any]) -> None:
    """The checkpoint, with the random generators of all processes."""
    states = training.team.gather(random_state())
    if training.written:
        facts = {"best": best, "cases": training.cases, "steps": training.recipe.steps}
        training.learner.save(training.written / CHECKPOINT, facts, states)


def _step(
    training: _Training, trained: torch.nn.Module, batch: Mapping[str, Any]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """One step of the optimizer; the loss and its terms, detached."""
    recipe, learner, device = training.recipe, training.learner, training.team.device
    image = batch["image"].to(device, non_blocking=True, memory_format=LAYOUT)
    target = batch["target"].to(device, non_blocking=True)
    learner.net.train()
    learner.optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, training.precision, enabled=training.precision != torch.float32):
        logits = trained(image)
    ignored = batch["ignored"] if batch["ignored"] is None else batch["ignored"].to(device, non_blocking=True)
    total, terms = loss(logits, target, batch["annotated"], recipe.loss, recipe.classes, ignored)
    learner.scaler.scale(total).backward()
    learner.scaler.unscale_(learner.optimizer)
    if recipe.optimizer.clip:
        torch.nn.utils.clip_grad_norm_(learner.net.parameters(), recipe.optimizer.clip)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    if learner.average is not None:
        learner.average.update_parameters(learner.net)
    learner.step += 1
    return total.detach(), terms


def _after_epoch(
    training: _Training,
    epoch: int,
    ending: bool,
    batch: Mapping[str, Any],
    best: dict[str, Any],
    metrics: Metrics,
    show: Show,
) -> dict[str, Any]:
    """The pictures and the validation that are due after an epoch; the best score so far."""
    recipe, step, folder = training.recipe, training.learner.step, training.written
    if folder and _due(epoch, recipe.pictures_every, ending):
        path = folder / PICTURES / f"epoch_{epoch:04d}.png"
        show_batch(training.model, batch, path, training.team.device)
        metrics.picture(step, "patches", path)
    if training.held and training.score and _due(epoch, recipe.validate_every, ending):
        figures = validate(training.model, training.held, recipe, training.score, training.team)
        metrics.log(step, {f"validation_{name}": value for name, value in figures.items()})
        show(step, figures)
        best = compared(best, figures, step)
        if folder and recipe.patience and best["step"] == step:
            save_model(folder / BEST, dataclasses.replace(training.model, record={"figures": best}))
        if recipe.patience and best["waited"] >= recipe.patience:
            log.warning("no better score in %d validations: ended early", recipe.patience)
            best = {**best, "ended": True}
    return best


def show_batch(model: Model, batch: Mapping[str, Any], path: Path, device: torch.device, most: int = 6) -> None:
    """The tumors of a batch's patches, true and as the model sees them now, as a PNG."""
    low, high = model.spec.window_hu
    model.net.eval()
    with torch.no_grad():
        probabilities = torch.sigmoid(model.net(batch["image"][:most].to(device)).float()).cpu().numpy()
    items = []
    for index, probability in enumerate(probabilities):
        hu = batch["image"][index, 0].cpu().numpy() * np.float32(high - low) + np.float32(low)
        grid = Geometry.of(hu.shape, model.spec.spacing_mm)
        # the tumors, which every second output is
        truth, predicted = batch["target"][index, 1::2].cpu().numpy().any(axis=0), (probability[1::2] > 0.5).any(axis=0)
        title = f"{batch['case'][index]}, {'synthetic' if batch['synthetic'][index] else 'as it is'}"
        items.append((title, Volume(hu, grid), Volume(truth, grid), Volume(predicted, grid)))
    pictures.show_patches(items, path)


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    """A step whose loss has not been looked at yet."""

    number: int
    loss: torch.Tensor
    terms: Mapping[str, torch.Tensor]
    batch: Mapping[str, Any]


def _read(step: _Step | None, folder: Path | None) -> dict[str, float]:
    """The figures of a step; `RunError` if its loss is not finite, with the batch written into the run folder."""
    if step is None:
        return {}
    value = float(step.loss)
    if not math.isfinite(value):
        cases = sorted(set(step.batch["case"]))
        place = ""
        if folder:
            tensors = {name: data for name, data in step.batch.items() if isinstance(data, torch.Tensor)}
            write_tensors(folder / f"{BAD_BATCH}.safetensors", tensors, {"step": str(step.number)})
            write_json(folder / f"{BAD_BATCH}.json", {"step": step.number, "cases": list(step.batch["case"])})
            place = f"its patches are in {folder / BAD_BATCH}.safetensors; "
        raise RunError(
            f"the loss of step {step.number} is {value}",
            found=f"patches of {', '.join(cases)}",
            fix=f"{place}lower optimizer.rate or clip, or try precision = 'fp32'",
        )
    return {"loss": value, **{name: float(term) for name, term in step.terms.items()}}


def _due(epoch: int, every: int, ending: bool) -> bool:
    return bool(every) and (ending or epoch % every == 0)


def _parallel(net: torch.nn.Module, recipe: TrainRecipe, team: Team) -> torch.nn.Module:
    """The network as the loop calls it: compiled if asked for, its gradients shared in a team."""
    if recipe.compile:
        net = torch.compile(net)
    if team.size > 1:
        devices = [team.device.index] if team.device.type == "cuda" else None
        net = torch.nn.parallel.DistributedDataParallel(net, devices)
    return net
