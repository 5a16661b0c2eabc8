"""Training: real tumors and synthetic ones, drawn anew in every epoch; the loop reads from top to bottom."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from synthoma import anatomy, pictures
from synthoma.cases import Case
from synthoma.disk import write_json
from synthoma.errors import CaseError, RecipeError, RunError
from synthoma.learning.cache import build_cache
from synthoma.learning.entry import Entry
from synthoma.learning.loader import loader, steps_per_epoch
from synthoma.learning.loop import (
    Learner,
    OptimizerRecipe,
    Precision,
    Team,
    averaged,
    choose_precision,
    make_optimizer,
    memory_advice,
    rate_at,
    stop_requests,
    write_tensors,
)
from synthoma.learning.losses import LossRecipe, loss
from synthoma.learning.metrics import Metrics
from synthoma.learning.models import MODEL, Model, ModelSpec, save_model
from synthoma.learning.networks import NetworkRecipe, build_network
from synthoma.learning.patches import Augment, Patches, PatchRecipe, class_masks
from synthoma.recipe import Recipe
from synthoma.runs import Run
from synthoma.segmentation.infer import SegmentRecipe, segment
from synthoma.volume import Box, Geometry, Volume

log = logging.getLogger(__name__)

CHECKPOINT, PICTURES, BAD_BATCH = "checkpoint.safetensors", "pictures", "bad_batch"
Masks = Mapping[str, Volume]
Score = Callable[[str, Masks, Masks], dict[str, float]]  # case, truth, predicted -> figures by name
EVERY_CASE = "*"


class TrainRecipe(Recipe):
    """How to train.

    organs: one output for each, which holds its tumors too, and one for its tumors. steps: of the optimizer. batch:
    patches a step (and process); after `patches.per_epoch` of them every case has other synthetic tumors.
    synthesis: which tumors are put into healthy tissue (a synthesis recipe; its `probability` is that of a case to
    get some in an epoch); without it there are none. healthy: data sets or cases whose organs are known to bear no
    tumor though no tumor mask says so; `*` for all. precision: of the network's arithmetic. average: decay of the
    average of weights that becomes the model; 0 takes the last weights. validation: share of patients held back where
    no splits are given; validate_every: in epochs, 0 never; patience: validations without a better score after which
    training ends, 0 never ends early. checkpoint_every: in steps. pictures_every: in epochs, 0 never.
    """

    organs: tuple[Literal["liver", "pancreas", "kidney", "colon", "esophagus", "uterus"], ...] = ("liver",)
    steps: int = Field(25_000, ge=1)
    batch: int = Field(2, ge=1)
    network: NetworkRecipe = NetworkRecipe()
    patches: PatchRecipe = PatchRecipe()
    synthesis: dict[str, Any] | None = None
    healthy: tuple[str, ...] = ()
    loss: LossRecipe = LossRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    precision: Precision = "auto"
    average: float = Field(0.999, ge=0, lt=1)
    compile: bool = False
    validation: float = Field(0.2, ge=0, lt=1)
    validate_every: int = Field(10, ge=0)
    patience: int = Field(0, ge=0)
    segment: SegmentRecipe = SegmentRecipe()
    checkpoint_every: int = Field(500, ge=1)
    pictures_every: int = Field(10, ge=0)
    log_every: int = Field(10, ge=1)
    tensorboard: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.organs or len(set(self.organs)) < len(self.organs):
            raise ValueError("organs needs at least one organ, and each once")
        if not self.patches.spacing_mm:
            raise ValueError("patches.spacing_mm must be above 0: the scans of a training have one spacing")
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """The network's outputs in order: every organ, then its tumors."""
        return tuple(name for organ in self.organs for name in (organ, anatomy.organ(organ).lesion))

    def spec(self) -> ModelSpec:
        """What a model of this recipe needs to be used."""
        return ModelSpec(
            network=self.network,
            classes=self.classes,
            spacing_mm=(self.patches.spacing_mm,) * 3,
            window_hu=self.patches.window_hu,
            patch=self.patches.size,
        )


def train(
    recipe: TrainRecipe,
    training: Sequence[Case],
    validation: Sequence[Case],
    run: Run | None,
    team: Team,
    *,
    cache: Path,
    seed: int = 0,
    workers: int = 0,
    augment: Augment | None = None,
    score: Score | None = None,
    start: Model | None = None,
) -> Model:
    """The trained model, also written to the run folder; a run that was interrupted goes on at its last checkpoint.

    run: the open run folder of the team's first process, None in the others. cache: where prepared cases are kept,
    for any number of runs. workers: processes that make patches; how many there are changes nothing but the speed.
    augment: puts synthetic tumors into patches. score: figures of a validation case; its `lesion_dsc`, or what else
    comes first, is the score of the model. start: what training starts from instead of random weights; its network
    and classes must be the recipe's, else `RecipeError`.

    Interrupted by a signal it saves, and raises `KeyboardInterrupt`. Raises `CaseError` if there is nothing to learn
    from, and `RunError` if the loss is not finite (the batch is written beside the checkpoint) or memory is short.
    """
    entries = _cached(training, recipe, cache, augment, workers, team)
    held = _cached(validation, recipe, cache, None, workers, team)
    _require_something_to_learn(recipe, entries, augment)
    patches = Patches(entries, recipe.patches, recipe.classes, augment, seed)
    epoch_steps = steps_per_epoch(patches, recipe.batch, team.size)

    torch.manual_seed(seed)
    layout = torch.channels_last_3d  # a fifth faster on CPUs too
    net = build_network(recipe.network, len(recipe.classes))
    if start is not None:
        _start_from(start, net, recipe)
    net = net.to(team.device, memory_format=layout)
    precision = choose_precision(recipe.precision, team.device)
    learner = Learner(
        net,
        make_optimizer(net, recipe.optimizer),
        torch.amp.GradScaler(team.device.type, enabled=precision == torch.float16),
        averaged(net, recipe.average) if recipe.average else None,
    )
    judged = net if learner.average is None else learner.average.module
    origin = {"start": start.record} if start else {}
    model = Model(judged, recipe.spec(), {"recipe": recipe.as_dict(), "data": _described(entries, held), **origin})
    folder = run.folder if run else None
    # every process goes on from the checkpoint that the first one wrote
    found = team.gather(run and (run.folder / CHECKPOINT).exists() and str(run.folder / CHECKPOINT))[0]
    best: dict[str, Any] = {"score": None, "waited": 0, "ended": False}
    if found:
        best = learner.restore(found)
        log.info("resumed at step %d", learner.step)
    trained = _parallel(net, recipe, team)
    advice = "lower batch or patches.size, or take a smaller network"
    with (
        Metrics(run, learner.step, recipe.tensorboard) as metrics,
        stop_requests() as stop,
        memory_advice(advice),
    ):
        epoch, first = divmod(learner.step, epoch_steps)
        done = best["ended"] or learner.step >= recipe.steps
        batches = loader(
            patches, epoch, first, recipe.batch, workers, team.rank, team.size,
            epochs=0 if done else -(-recipe.steps // epoch_steps) - epoch, pin=team.device.type == "cuda",
        )  # fmt: skip
        unread: _Step | None = None
        since = time.perf_counter()
        for batch in batches:
            waited = time.perf_counter() - since
            for group in learner.optimizer.param_groups:
                group["lr"] = rate_at(learner.step, recipe.steps, recipe.optimizer)
            image = batch["image"].to(team.device, non_blocking=True, memory_format=layout)
            target = batch["target"].to(team.device, non_blocking=True)

            net.train()
            learner.optimizer.zero_grad(set_to_none=True)
            with torch.autocast(team.device.type, precision, enabled=precision != torch.float32):
                logits = trained(image)
            total, terms = loss(logits, target, batch["annotated"], recipe.loss, recipe.classes)
            learner.scaler.scale(total).backward()
            learner.scaler.unscale_(learner.optimizer)
            if recipe.optimizer.clip:
                torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.optimizer.clip)
            learner.scaler.step(learner.optimizer)
            learner.scaler.update()
            if learner.average is not None:
                learner.average.update_parameters(net)
            learner.step += 1

            # the loss is read one step late, so that a GPU never waits for its reader
            _read(unread, folder)
            unread = _Step(learner.step, total.detach(), terms, batch)
            stopping = team.any(stop.wanted) if team.size == 1 or learner.step % recipe.log_every == 0 else False
            ending = learner.step == recipe.steps
            epoch_done = learner.step % epoch_steps == 0 or ending
            if learner.step % recipe.log_every == 0 or epoch_done:
                figures = _read(unread, folder)
                seconds = time.perf_counter() - since
                metrics.log(learner.step, {**figures, "rate": group["lr"], "seconds": seconds, "waited": waited})
            if epoch_done:
                epoch = -(-learner.step // epoch_steps)
                if folder and _due(epoch, recipe.pictures_every, ending):
                    show_batch(model, batch, folder / PICTURES / f"epoch_{epoch:04d}.png", team.device)
                if held and score and _due(epoch, recipe.validate_every, ending):
                    figures = validate(model, held, recipe, score, team)
                    metrics.log(learner.step, {f"validation_{name}": value for name, value in figures.items()})
                    best = _compared(best, figures)
                    if recipe.patience and best["waited"] >= recipe.patience:
                        log.warning("no better score in %d validations: ended early", recipe.patience)
                        ending = best["ended"] = True
            if folder and (stopping or ending or epoch_done or learner.step % recipe.checkpoint_every == 0):
                _read(unread, folder)
                learner.save(folder / CHECKPOINT, best)
            if stopping:
                raise KeyboardInterrupt
            if ending:
                break
            since = time.perf_counter()
    model = dataclasses.replace(model, record={**model.record, "steps": learner.step, "figures": best})
    if folder:
        save_model(folder / MODEL, model)
    team.wait()
    return model


def validate(model: Model, entries: Sequence[Entry], recipe: TrainRecipe, score: Score, team: Team) -> dict[str, float]:
    """The mean of every figure over the cases that have it, each case segmented as a whole at training spacing."""
    mine = {}
    for entry in entries[team.rank :: team.size]:
        whole = Box.whole(entry.geometry.shape)
        classes = [name for name in recipe.classes if entry.annotates(name)]
        truth = class_masks(entry.read_labels(whole), classes).astype(bool)
        found = segment(model, Volume(entry.read_hu(whole), entry.geometry), recipe.segment, team.device).masks
        known = {name: Volume(mask, entry.geometry) for name, mask in zip(classes, truth, strict=True)}
        mine[entry.case] = score(entry.case, known, {name: found[name] for name in classes})
    scores = {case: figures for part in team.gather(mine) for case, figures in part.items()}
    names = dict.fromkeys(name for case in sorted(scores) for name in scores[case])
    columns = {name: [scores[case].get(name, math.nan) for case in sorted(scores)] for name in names}
    return {
        name: float(np.nanmean(values)) if not np.isnan(values).all() else math.nan for name, values in columns.items()
    }


def show_batch(model: Model, batch: Mapping[str, Any], path: Path, device: torch.device, most: int = 6) -> None:
    """The tumors of a batch's patches, true and as the model sees them now, as a PNG."""
    low, high = model.spec.window_hu
    model.net.eval()
    with torch.no_grad():
        probabilities = torch.sigmoid(model.net(batch["image"][:most].to(device)).float()).cpu().numpy()
    items = []
    for index, probability in enumerate(probabilities):
        hu = batch["image"][index, 0].numpy() * np.float32(high - low) + np.float32(low)
        grid = Geometry.of(hu.shape, model.spec.spacing_mm)
        # the tumors, which every second output is
        truth, predicted = batch["target"][index, 1::2].numpy().any(axis=0), (probability[1::2] > 0.5).any(axis=0)
        items.append((batch["case"][index], Volume(hu, grid), Volume(truth, grid), Volume(predicted, grid)))
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


def _compared(best: Mapping[str, Any], figures: Mapping[str, float]) -> dict[str, Any]:
    """The best score so far and for how many validations there was none better, with the latest figures."""
    score = next((value for name, value in figures.items() if name == "lesion_dsc"), next(iter(figures.values())))
    better = best["score"] is None or score > best["score"]
    plain = {name: None if math.isnan(value) else round(value, 4) for name, value in figures.items()}
    return {
        "score": score if better and not math.isnan(score) else best["score"],
        "waited": 0 if better else best["waited"] + 1,
        "ended": best["ended"],
        "latest": plain,
    }


def _start_from(start: Model, net: torch.nn.Module, recipe: TrainRecipe) -> None:
    if (start.spec.network, start.spec.classes) != (recipe.network, recipe.classes):
        raise RecipeError(
            "the model to start from is another one",
            found=f"{start.spec.network.as_dict()} for {', '.join(start.spec.classes)}",
            expected=f"{recipe.network.as_dict()} for {', '.join(recipe.classes)}",
            fix="give the recipe its network and organs, or start from random weights",
        )
    net.load_state_dict(start.net.state_dict())


def _parallel(net: torch.nn.Module, recipe: TrainRecipe, team: Team) -> torch.nn.Module:
    """The network as the loop calls it: compiled if asked for, its gradients shared in a team."""
    if recipe.compile:
        net = torch.compile(net)
    if team.size > 1:
        devices = [team.device.index] if team.device.type == "cuda" else None
        net = torch.nn.parallel.DistributedDataParallel(net, devices)
    return net


def _cached(
    cases: Sequence[Case], recipe: TrainRecipe, cache: Path, augment: Augment | None, workers: int, team: Team
) -> list[Entry]:
    """The cases as patches are cut from them; the first process makes what is missing, the others find it."""
    known = [_with_health(case, recipe.healthy) for case in cases]

    def build() -> list[Entry]:
        return build_cache(known, cache, recipe.patches.spacing_mm, augment, workers=workers) if known else []

    if team.is_rank_0:
        entries = build()
        team.wait()
        return entries
    team.wait()
    return build()


def _with_health(case: Case, healthy: Iterable[str]) -> Case:
    if {case.id, case.dataset, EVERY_CASE}.isdisjoint(healthy):
        return case
    return dataclasses.replace(case, attributes={**case.attributes, "healthy": True})


def _require_something_to_learn(recipe: TrainRecipe, entries: Sequence[Entry], augment: Augment | None) -> None:
    if not entries:
        raise CaseError("no case to train on", fix="look at the splits and at --data")
    for name in recipe.classes:
        if not any(entry.annotates(name) for entry in entries):
            organ = not anatomy.is_lesion(name)
            raise RecipeError(
                f"no case of {len(entries)} says where the {name} is",
                found=f"masks of {', '.join(sorted({each for entry in entries for each in entry.annotated}))}",
                fix="leave the organ out of organs"
                if organ
                else "name data sets without tumors in healthy, or leave the organ out",
            )
    if augment is None and not any(entry.lesions for entry in entries):
        raise CaseError(
            "no tumor to learn from",
            found=f"{len(entries)} cases without one, and no synthesis",
            fix="give the recipe a [synthesis] table, or cases with tumors",
        )


def _described(entries: Sequence[Entry], held: Sequence[Entry]) -> dict[str, Any]:
    """The data in a model's record."""
    return {
        "training": [entry.case for entry in entries],
        "validation": [entry.case for entry in held],
        "patients": len({entry.patient for entry in entries}),
        "real_tumors": sum(len(entry.lesions) for entry in entries),
    }
