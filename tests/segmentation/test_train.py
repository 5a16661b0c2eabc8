"""Training end to end on small scans: it learns, resumes bit for bit, and refuses what it cannot learn from."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ill import scan

from synthoma.anatomy import IGNORE
from synthoma.cases import Case
from synthoma.errors import CaseError, FileError, RecipeError, RunError
from synthoma.learning.cache import build_cache
from synthoma.learning.loader import collate
from synthoma.learning.loop import Team, rate_at
from synthoma.learning.losses import loss
from synthoma.learning.models import MODEL, Model, load_model
from synthoma.learning.networks import build_network
from synthoma.learning.patches import Patches
from synthoma.phantom.cohort import CohortRecipe, cohort_case
from synthoma.phantom.hospitals import Hospital
from synthoma.recipe import make_recipe
from synthoma.runs import open_run, read_run
from synthoma.segmentation.recipe import TrainRecipe
from synthoma.segmentation.train import CHECKPOINT, train
from synthoma.training.segmentation import training_data
from synthoma.volume import Volume

TINY: dict[str, Any] = {
    "steps": 12, "network": {"width": 4, "depth": 3}, "average": 0.9, "log_every": 1, "validate_every": 0,
    "pictures_every": 0, "tensorboard": False, "optimizer": {"rate": 0.03, "warmup": 5},
    "patches": {"size": [16, 16, 16], "spacing_mm": 4.0, "per_epoch": 8, "augmentation": {"rotation_probability": 1.0}},
}  # fmt: skip
ILL = scan("ill", 40.0)
ALONE = Team(torch.device("cpu"))


def recipe(**changes: Any) -> TrainRecipe:
    return make_recipe(TrainRecipe, {**TINY, **changes, "patches": {**TINY["patches"], **changes.get("patches", {})}})


def learn(folder: Path, settings: TrainRecipe, cases: Sequence[Case] = (ILL,), **others: Any) -> Model:
    validation, start = others.pop("validation", ()), others.pop("start", None)
    data = training_data(settings, cases, validation, folder.parent / "cache", 0)
    data = replace(data, start=start, score=others.pop("score", data.score))
    with open_run(folder, "train", settings, growing="steps") as run:
        return train(settings, data, run, ALONE, **others)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics(folder) if "loss" in line]


def weights(model: Model) -> list[torch.Tensor]:
    return list(model.net.state_dict().values())


def same(first: Model, second: Model) -> bool:
    return all(torch.equal(one, other) for one, other in zip(weights(first), weights(second), strict=True))


def test_it_learns_one_tumor_by_heart(tmp_path: Path) -> None:
    settings = recipe(
        steps=120, network={"width": 8, "depth": 3}, validate_every=100, pictures_every=100,
        patches={"size": [24, 24, 24], "per_epoch": 40, "augmentation": {"flip": [0, 0, 0]}},
    )  # fmt: skip
    model = learn(tmp_path / "run", settings, validation=[ILL])
    assert metrics(tmp_path / "run")[-1]["validation_lesion_dsc"] > 0.9
    assert model.record["figures"]["latest"]["lesion_dsc"] > 0.9
    assert model.record["figures"]["latest"]["lesion_sensitivity"] == 1
    assert "false_per_scan" in model.record["figures"]["latest"]
    assert model.record["data"]["training"] == ["ill"]
    assert (tmp_path / "run/pictures/epoch_0006.png").stat().st_size > 10_000
    assert same(model, load_model(tmp_path / "run"))


def test_without_a_tumor_label_it_finds_a_tumor(tmp_path: Path) -> None:
    healthy = [scan(f"healthy_{n}") for n in range(2)]
    settings = recipe(
        steps=150, network={"width": 8, "depth": 3}, validate_every=100,
        synthesis={"probability": 1.0, "diameter_mm": [25, 50], "contrast_hu": [-80, -50]},
        patches={"size": [24, 24, 24], "per_epoch": 40},
    )  # fmt: skip
    learn(tmp_path / "run", settings, healthy, validation=[ILL])
    assert metrics(tmp_path / "run")[-1]["validation_lesion_dsc"] > 0.6


def test_the_number_of_workers_changes_no_loss(tmp_path: Path) -> None:
    settings = recipe(synthesis={"probability": 0.5})
    first = learn(tmp_path / "none", settings, [ILL, scan("healthy")])
    second = learn(tmp_path / "two", settings, [ILL, scan("healthy")], workers=2)
    assert losses(tmp_path / "none") == losses(tmp_path / "two")
    assert same(first, second)


@pytest.mark.parametrize("step", [3, 4, 11])
def test_what_was_stopped_anywhere_ends_as_if_it_had_not_been(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(checkpoint_every=5)
    whole = learn(tmp_path / "whole", settings)
    _stop_at(step, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "stopped", settings)
    monkeypatch.undo()
    assert read_run(tmp_path / "stopped").status == "interrupted"
    assert len(losses(tmp_path / "stopped")) == step
    assert same(whole, learn(tmp_path / "stopped", settings))
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


def _stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthoma.segmentation import train as module

    def counted(*words: Any) -> Any:
        counted.calls += 1  # type: ignore[attr-defined]
        if counted.calls == step:  # type: ignore[attr-defined]
            signal.raise_signal(signal.SIGTERM)
        return real(*words)

    counted.calls = 0  # type: ignore[attr-defined]
    real = module.loss
    monkeypatch.setattr(module, "loss", counted)


def test_the_rate_of_every_step_is_that_of_the_schedule(tmp_path: Path) -> None:
    settings = recipe()
    learn(tmp_path / "run", settings)
    rates = [line["rate"] for line in metrics(tmp_path / "run") if "rate" in line]
    assert rates == pytest.approx([rate_at(step, 12, settings.optimizer) for step in range(12)], rel=1e-5)
    assert rates[0] < rates[4] > rates[-1]


@pytest.mark.parametrize(("clip", "length"), [(1e-4, 1e-4), (0.0, None)])
def test_a_step_is_no_longer_than_the_clipped_gradient(tmp_path: Path, clip: float, length: float | None) -> None:
    def after(steps: int) -> torch.Tensor:
        optimizer = {"name": "sgd", "rate": 1.0, "momentum": 0.0, "weight_decay": 0, "warmup": 0,
                     "schedule": "constant", "clip": clip}  # fmt: skip
        settings = recipe(steps=steps, average=0, optimizer=optimizer)
        model = learn(tmp_path / str(steps), settings)
        return torch.cat([p.detach().flatten() for p in model.net.parameters()])

    moved = float((after(2) - after(1)).norm())
    if length is None:
        assert moved > 1e-2
    else:
        assert moved == pytest.approx(length, rel=0.01)


@pytest.mark.parametrize("steps", [12, 10])
def test_a_finished_run_is_not_trained_again(tmp_path: Path, steps: int) -> None:
    settings = recipe(steps=steps)
    first = learn(tmp_path / "run", settings)
    before = (tmp_path / "run/metrics.jsonl").read_text()
    assert same(first, learn(tmp_path / "run", settings))
    assert (tmp_path / "run/metrics.jsonl").read_text() == before


def test_a_class_without_annotation_learns_nothing(tmp_path: Path) -> None:
    settings = recipe(batch=1)
    others = [ILL, scan("unknown", 40.0, annotated=False)]
    learn(tmp_path / "run", settings, others)
    assert any("dice_loss_liver_lesion" not in line for line in metrics(tmp_path / "run"))
    assert all("dice_loss_liver" in line for line in metrics(tmp_path / "run"))


def test_a_hospital_without_pancreas_labels_changes_no_pancreas_gradient(tmp_path: Path) -> None:
    """Patches of its patients beside those of another one: the pancreas learns what it would learn without them."""
    annotations = {"all": None, "kidneys": ("kidney", "kidney_lesion")}
    hospitals = tuple(Hospital(name=name, annotated=what, tumors=0.0) for name, what in annotations.items())
    cohort = CohortRecipe(spacing_mm=8, cases=2, hospitals=hospitals, region="pancreas")
    entries = build_cache([cohort_case(cohort, 0), cohort_case(cohort, 1)], tmp_path, 8.0)
    settings = recipe(organs=["pancreas", "kidney"], patches={"lesion_share": 0, "organ_share": 1, "spacing_mm": 8.0})
    whole, partial = (Patches([entry], settings.patches, settings.classes) for entry in entries)
    pairs = [collate([(0, one.draw(0, 0))]) for one in (whole, partial)]
    both = collate([(0, whole.draw(0, 0)), (1, partial.draw(0, 0))])
    assert both["annotated"].tolist() == [[True] * 4, [False, False, True, True]]

    def gradients(batch: dict[str, Any]) -> list[torch.Tensor]:
        """Of what the pancreas and its tumors say, by each weight of the network."""
        torch.manual_seed(0)
        net = build_network(settings.network, len(settings.classes))
        known = batch["annotated"] & torch.tensor([True, True, False, False])
        total, _ = loss(net(batch["image"]), batch["target"], known, settings.loss, settings.classes)
        return list(torch.autograd.grad(total, list(net.parameters()), allow_unused=True))

    alone, together, unknown = gradients(pairs[0]), gradients(both), gradients(pairs[1])
    assert any(bool(gradient.abs().sum() > 0) for gradient in alone if gradient is not None)
    for one, other, nothing in zip(alone, together, unknown, strict=True):
        assert one is None or torch.allclose(one, 2 * other, atol=1e-6)  # half the mean, over twice the patches
        assert nothing is None or not nothing.any()


@pytest.mark.parametrize(
    ("cases", "changes", "error", "words"),
    [
        ([scan("healthy")], {}, CaseError, "no tumor to learn from"),
        ([], {}, CaseError, "no case to train on"),
        ([ILL], {"organs": ["liver", "pancreas"]}, RecipeError, "where the pancreas is"),
        ([scan("a", annotated=False)], {"synthesis": {}}, RecipeError, "healthy"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    tmp_path: Path, cases: list[Case], changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        learn(tmp_path / "run", recipe(**changes), cases)


def test_cases_said_to_be_healthy_can_host_tumors(tmp_path: Path) -> None:
    settings = recipe(healthy=["a"], synthesis={"probability": 1.0})
    learn(tmp_path / "run", settings, [scan("a", annotated=False)])
    assert all("dice_loss_liver_lesion" in line for line in metrics(tmp_path / "run"))


def test_it_can_start_from_another_training(tmp_path: Path) -> None:
    first = learn(tmp_path / "first", recipe())
    still = recipe(steps=1, average=0, optimizer={"name": "sgd", "rate": 1e-30, "warmup": 0})
    assert same(first, learn(tmp_path / "second", still, start=first))
    assert not same(first, learn(tmp_path / "fresh", still))
    with pytest.raises(RecipeError, match="another one"):
        learn(tmp_path / "third", recipe(network={"width": 5, "depth": 3}), start=first)


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_batch(tmp_path: Path) -> None:
    settings = recipe(optimizer={"name": "sgd", "rate": 1e30, "warmup": 0, "clip": 0})
    with pytest.raises(RunError, match="patches of ill"):
        learn(tmp_path / "run", settings)
    batch = json.loads((tmp_path / "run/bad_batch.json").read_text())
    assert batch["cases"] == ["ill", "ill"]
    assert (tmp_path / "run/bad_batch.safetensors").stat().st_size > 16**3
    assert not (tmp_path / "run" / MODEL).exists()


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    settings = recipe()
    learn(tmp_path / "run", settings)
    path = tmp_path / "run" / CHECKPOINT
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FileError, match="not a whole"):
        learn(tmp_path / "run", settings)


def test_with_patience_the_model_is_that_of_the_best_validation(tmp_path: Path) -> None:
    scores = iter([0.2, 0.7, 0.5, 0.6, 0.4])
    constant = {"rate": 0.03, "warmup": 5, "schedule": "constant"}
    settings = recipe(steps=40, validate_every=1, patience=3, optimizer=constant)
    model = learn(
        tmp_path / "run", settings, validation=[ILL], score=lambda *_: {"lesion_dsc": next(scores)}
    )  # epochs of 4 steps
    figures = model.record["figures"]
    assert (figures["score"], figures["step"], model.record["steps"]) == (0.7, 8, 20)
    assert same(model, learn(tmp_path / "short", recipe(steps=8, optimizer=constant)))
    assert same(model, load_model(tmp_path / "run"))


def test_the_loss_is_told_which_voxels_nobody_annotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthoma.segmentation import train as module

    case = scan("ill", 40.0)
    grid = case.read_geometry()
    unknown = np.zeros(grid.shape, bool)
    unknown[:, :, 20:] = True
    told: list[torch.Tensor] = []
    real = module.loss

    def listening(logits: Any, target: Any, annotated: Any, recipe: Any, classes: Any, ignored: Any = None) -> Any:
        told.append(ignored)
        assert ignored is None or not target.masked_select(ignored).any()
        return real(logits, target, annotated, recipe, classes, ignored)

    monkeypatch.setattr(module, "loss", listening)
    masks = {**case.masks, IGNORE: Volume(unknown, grid)}
    learn(tmp_path / "run", recipe(steps=4, validate_every=1), [replace(case, masks=masks)], validation=[ILL])
    assert any(ignored is not None and 0 < ignored.float().mean() < 1 for ignored in told)


def test_it_ends_early_when_nothing_gets_better(tmp_path: Path) -> None:
    settings = recipe(
        steps=400, validate_every=1, patience=2, optimizer={"name": "sgd", "rate": 1e-12, "schedule": "constant"}
    )
    model = learn(tmp_path / "run", settings, validation=[ILL])
    assert model.record["steps"] == 4 * 3  # the first validation is the best, the next two are not better
    assert np.isfinite(losses(tmp_path / "run")).all()
    assert same(model, learn(tmp_path / "run", settings, validation=[ILL]))
    assert len(losses(tmp_path / "run")) == 4 * 3
